"""Values that the chart is rendered with: what a platform engineer may choose."""

from __future__ import annotations

from tests.helpers.helm import S3

EVERYTHING = (
    *S3,
    "storage.prefix=teams/nlp",
    "storage.s3.addressing=virtual",
    "operator.namespaces={team-a,team-b}",
    "image.registry=mirror.example.com/ai/",
    "image.pullSecrets={mirror}",
    f"images.train.digest=sha256:{'ab' * 32}",
    "monitoring.enabled=true",
    "monitoring.dashboards.enabled=false",
    "monitoring.labels.release=prometheus",
    "proxy.https=http://proxy.example.com:3128",
    "proxy.exclude=s3.example.com",
    "huggingFace.endpoint=https://hub.example.com",
    "certificates.pem=-----BEGIN CERTIFICATE-----",
    "quota.pods=20",
    "limits[0].type=Container",
    "limits[0].defaultRequest.cpu=100m",
    "priorityClasses[0].name=fengshenbang-high",
    "priorityClasses[0].value=1000",
    "scheduling.priorityClass=system",
    "scheduling.nodeSelector.pool=system",
    "scheduling.tolerations[0].operator=Exists",
    "nodeLabels=gke",
    "pools.rdma.profile=a100-80",
    "pools.rdma.extraResources.rdma/hca=1",
    "pools.rdma.capabilities={IPC_LOCK}",
    "networkPolicies.storageCidrs={10.0.0.0/8}",
    "networkPolicies.apiServerCidrs={10.96.0.1/32}",
    "networkPolicies.clients[0].namespaceSelector.matchLabels.app=shop",
    "progress.tlsSecret=progress-tls",
    "progress.certificate=progress-ca",
    "pipelines.namespace=team-a",
    "leaderboard.replicas=2",
    "serviceAccountAnnotations.example\\.com/role=reader",
)  # fmt: skip
MATRIX = {
    "s3": (*S3, "monitoring.dashboards.enabled=false"),
    "dev": (
        "storage.dev.enabled=true", "namespaces={team-a,team-b}", "pipelines.upload=none",
        "monitoring.dashboards.enabled=false",
    ),
    "volume": (
        "storage.volume.claim=shared", "storage.volume.path=models", "storage.dev.size=",
        "pipelines.upload=none", "serving.enabled=false", "leaderboard.enabled=false",
        "progress.enabled=false", "networkPolicies.wholeNamespaces=true",
        "monitoring.dashboards.enabled=false",
    ),
    "everything": EVERYTHING,
}  # fmt: skip
