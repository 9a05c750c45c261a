{{/* Node pools: a profile of files/profiles.yaml with the keys of the value over it. */}}
{{- define "fsb.pools" -}}
{{- $profiles := .Files.Get "files/profiles.yaml" | fromYaml -}}
{{- $cloud := .Values.nodeLabels -}}
{{- $pools := dict -}}
{{- range $name, $pool := .Values.pools }}
{{- $profile := dict }}
{{- with $pool.profile }}{{ $profile = index $profiles . }}{{ end }}
{{- $selector := index ($profile.nodeLabels | default dict) $cloud | default dict }}
{{- $merged := mergeOverwrite (deepCopy (omit $profile "nodeLabels")) (deepCopy (omit $pool "profile")) }}
{{- if not (hasKey $pool "nodeSelector") }}{{ $_ := set $merged "nodeSelector" $selector }}{{ end }}
{{- /* Numbers are as good as texts to people, but not to the operator. */}}
{{- with $merged.cpu }}{{ $_ := set $merged "cpu" (toString .) }}{{ end }}
{{- range $resource, $count := $merged.extraResources }}
{{- $_ := set $merged.extraResources $resource (toString $count) }}
{{- end }}
{{- $_ := set $pools $name $merged }}
{{- end }}
{{- toYaml $pools }}
{{- end }}

{{/* The operator's settings file; operators/settings.py reads it. */}}
{{- define "fsb.settings" -}}
{{- $settings := dict
  "pullPolicy" .Values.image.pullPolicy
  "pullSecrets" .Values.image.pullSecrets
  "namespaces" (.Values.operator.namespaces | uniq | sortAlpha)
  "environment" (include "fsb.environment" . | fromYaml)
  "pools" (include "fsb.pools" . | fromYaml)
  "modelStore" (printf "%s/models" (include "fsb.root" .))
  "leaderboard" (printf "%s/leaderboard" (include "fsb.root" .)) -}}
{{- $images := dict -}}
{{- range $stage := keys .Values.images | sortAlpha }}
{{- $_ := set $images $stage (include "fsb.image" (dict "root" $ "stage" $stage)) }}
{{- end }}
{{- $_ := set $settings "images" $images }}
{{- with include "fsb.secret" . }}{{ $_ := set $settings "credentialsSecret" . }}{{ end }}
{{- with include "fsb.certificates" . }}{{ $_ := set $settings "certificates" . }}{{ end }}
{{- if .Values.progress.enabled }}
{{- $scheme := ternary "https" "http" (not (empty .Values.progress.tlsSecret)) }}
{{- $_ := set $settings "progressUrl" (printf "%s://fengshenbang-progress.%s.svc:8090" $scheme .Release.Namespace) }}
{{- with .Values.progress.certificate }}{{ $_ := set $settings "progressCertificate" . }}{{ end }}
{{- end }}
{{- toYaml $settings }}
{{- end }}
