{{/* Names, labels, images and the parts that every pod of the chart shares. */}}

{{/* Labels of an object; takes (dict "root" $ "component" "operator"). */}}
{{- define "fsb.labels" -}}
{{ include "fsb.selector" . }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: fengshenbang
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{/* Labels that never change: those that selectors name. */}}
{{- define "fsb.selector" -}}
app.kubernetes.io/name: fengshenbang
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The same for selectors, on one line; takes the component. */}}
{{- define "fsb.match" -}}
{app.kubernetes.io/name: fengshenbang, app.kubernetes.io/component: {{ . }}}
{{- end }}

{{/* Labels of a pod; "uses" lists what it may reach: api, storage. */}}
{{- define "fsb.podLabels" -}}
{{ include "fsb.selector" . }}
app.kubernetes.io/part-of: fengshenbang
{{- range .uses }}
fengshenbang.io/uses-{{ . }}: "true"
{{- end }}
{{- end }}

{{/* Image of a stage; takes (dict "root" $ "stage" "train"). */}}
{{- define "fsb.image" -}}
{{- $image := index .root.Values.images .stage -}}
{{- with .root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}
{{- else }}:{{ coalesce $image.tag .root.Values.image.tag .root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "fsb.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* A container under Pod Security Standard restricted. */}}
{{- define "fsb.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* What the spec of every pod of the chart begins with. */}}
{{- define "fsb.podSpec" -}}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- include "fsb.pullSecrets" . }}
{{- with .Values.scheduling.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scheduling.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scheduling.priorityClass }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Namespaces with runs, as JSON: {"names": […]}. */}}
{{- define "fsb.namespaces" -}}
{{- $names := coalesce .Values.namespaces .Values.operator.namespaces (list .Release.Namespace) -}}
{{- dict "names" ($names | uniq | sortAlpha) | toJson -}}
{{- end }}

{{/* The same and the release's own. */}}
{{- define "fsb.allNamespaces" -}}
{{- $names := (include "fsb.namespaces" . | fromJson).names -}}
{{- dict "names" (append $names .Release.Namespace | uniq | sortAlpha) | toJson -}}
{{- end }}
