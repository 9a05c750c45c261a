{{/* Where things are stored, and what pods need to get there. */}}

{{- define "fsb.bucket" -}}
{{- if .Values.storage.dev.enabled }}{{ .Values.storage.bucket | default "fengshenbang" }}
{{- else }}{{ .Values.storage.bucket }}{{ end }}
{{- end }}

{{/* URI of the folder that the model store and the leaderboard lie in. */}}
{{- define "fsb.root" -}}
{{- $storage := .Values.storage -}}
{{- if $storage.volume.claim -}}
{{- printf "pvc://%s/%s" $storage.volume.claim $storage.volume.path | trimSuffix "/" }}
{{- else -}}
{{- printf "s3://%s/%s" (include "fsb.bucket" .) $storage.prefix | trimSuffix "/" }}
{{- end }}
{{- end }}

{{/* The same for pods of the chart, which mount the claim as stage pods do. */}}
{{- define "fsb.rootPath" -}}
{{- include "fsb.root" . | replace "pvc://" "/mnt/claims/" }}
{{- end }}

{{- define "fsb.endpoint" -}}
{{- if .Values.storage.dev.enabled -}}
http://fengshenbang-s3.{{ .Release.Namespace }}.svc:9000
{{- else }}{{ .Values.storage.s3.endpoint }}{{ end }}
{{- end }}

{{/* Secret with the store's keys; empty where pods need none. */}}
{{- define "fsb.secret" -}}
{{- if not .Values.storage.volume.claim }}{{ .Values.storage.credentialsSecret }}{{ end }}
{{- end }}

{{- define "fsb.certificates" -}}
{{- if .Values.certificates.pem }}fengshenbang-ca{{ else }}{{ .Values.certificates.configMap }}{{ end }}
{{- end }}

{{/* Environment of every pod that reads or writes, as a YAML mapping. */}}
{{- define "fsb.environment" -}}
{{- $environment := dict -}}
{{- if not .Values.storage.volume.claim }}
{{- $_ := set $environment "AWS_REGION" .Values.storage.s3.region }}
{{- $_ := set $environment "FSB_S3_ADDRESSING" (ternary "path" .Values.storage.s3.addressing .Values.storage.dev.enabled) }}
{{- with include "fsb.endpoint" . }}{{ $_ := set $environment "AWS_ENDPOINT_URL_S3" . }}{{ end }}
{{- end }}
{{- with .Values.huggingFace.endpoint }}{{ $_ := set $environment "HF_ENDPOINT" . }}{{ end }}
{{- with .Values.proxy.http }}{{ $_ := set $environment "HTTP_PROXY" . }}{{ end }}
{{- with .Values.proxy.https }}{{ $_ := set $environment "HTTPS_PROXY" . }}{{ end }}
{{- if or .Values.proxy.http .Values.proxy.https }}
{{- /* The kubelet fills in the API server's address. */}}
{{- $hosts := list "localhost" "127.0.0.1" ".svc" ".cluster.local" "$(KUBERNETES_SERVICE_HOST)" }}
{{- $_ := set $environment "NO_PROXY" (append $hosts .Values.proxy.exclude | compact | join ",") }}
{{- end }}
{{- mergeOverwrite $environment (deepCopy .Values.environment) | toYaml }}
{{- end }}

{{/* The same as env of a container of the chart or of KServe. */}}
{{- define "fsb.env" -}}
{{- $environment := include "fsb.environment" . | fromYaml -}}
{{- if include "fsb.certificates" . }}
{{- $_ := set $environment "AWS_CA_BUNDLE" "/etc/fengshenbang-ca/ca.crt" }}
{{- end }}
{{- range $name, $value := $environment }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
- {name: HOME, value: /tmp}
- {name: FSB_CACHE, value: /tmp/fsb}
{{- end }}

{{/* Keys of the object store; empty where there is none. */}}
{{- define "fsb.envFrom" -}}
{{- if include "fsb.secret" . -}}
- secretRef: {name: {{ include "fsb.secret" . }}}
{{- end }}
{{- end }}

{{- define "fsb.storageVolumes" -}}
- {name: tmp, emptyDir: {}}
{{- with include "fsb.certificates" . }}
- {name: ca, configMap: {name: {{ . }}}}
{{- end }}
{{- with .Values.storage.volume.claim }}
- {name: claim, persistentVolumeClaim: {claimName: {{ . }}}}
{{- end }}
{{- end }}

{{- define "fsb.storageMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if include "fsb.certificates" . }}
- {name: ca, mountPath: /etc/fengshenbang-ca, readOnly: true}
{{- end }}
{{- with .Values.storage.volume.claim }}
- {name: claim, mountPath: /mnt/claims/{{ . }}}
{{- end }}
{{- end }}
