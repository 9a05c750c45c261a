{{/* Parts of the NetworkPolicies. */}}

{{- define "fsb.urlPort" -}}
{{- $default := hasPrefix "https" . | ternary "443" "80" -}}
{{- regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":" | default $default }}
{{- end }}

{{/* Ports that the object store and public hosts are reached on. */}}
{{- define "fsb.storagePorts" -}}
{{- $ports := list "443" -}}
{{- range list (include "fsb.endpoint" .) .Values.proxy.http .Values.proxy.https .Values.huggingFace.endpoint }}
{{- with . }}{{ $ports = append $ports (include "fsb.urlPort" .) }}{{ end }}
{{- end }}
{{- range $ports | uniq }}
- {port: {{ . }}, protocol: TCP}
{{- end }}
{{- end }}

{{/* Pods of runs in any namespace that the operator looks after. */}}
{{- define "fsb.runPeers" -}}
- podSelector: {matchExpressions: [{key: fengshenbang.io/run, operator: Exists}]}
  {{- if .Values.operator.namespaces }}
  namespaceSelector:
    matchExpressions:
      - key: kubernetes.io/metadata.name
        operator: In
        values: {{ .Values.operator.namespaces | uniq | sortAlpha | toJson }}
  {{- else }}
  namespaceSelector: {}
  {{- end }}
{{- end }}

{{- define "fsb.monitoringPeers" -}}
- namespaceSelector: {matchLabels: {{ toJson .Values.monitoring.namespaceLabels }}}
{{- end }}

{{- define "fsb.storageEgress" -}}
- {{ with .Values.networkPolicies.storageCidrs -}}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  {{ end -}}
  ports: {{- include "fsb.storagePorts" . | trim | nindent 4 }}
{{- if .Values.storage.dev.enabled }}
- to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace }}}}
      podSelector: {matchLabels: {{ include "fsb.match" "s3" }}}
  ports: [{port: 9000, protocol: TCP}]
{{- end }}
{{- with .Values.networkPolicies.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}
