{{/* Probes of the server's container. */}}

{{- define "erg.readyCheck" -}}
{{- with .Values.probes.readiness -}}
{{- if .grpc -}}
grpc:
  port: {{ include "erg.grpcPort" $ }}
  service: {{ first .models | default "" | quote }}
{{- else -}}
httpGet:
  path: /readyz{{ range $number, $model := .models }}{{ ternary "&" "?" (gt $number 0) }}model={{ $model | urlquery }}{{ end }}
  port: metrics
{{- end -}}
{{- end -}}
{{- end }}

{{- define "erg.probes" -}}
{{- $startup := .Values.probes.startup -}}
startupProbe:
  {{- include "erg.readyCheck" . | nindent 2 }}
  periodSeconds: {{ $startup.periodSeconds }}
  timeoutSeconds: {{ $startup.timeoutSeconds }}
  # {{ include "erg.startupSeconds" . }} s for a start with {{ int64 .Values.models.totalSizeBytes }} bytes of models
  failureThreshold: {{ add 1 (div (include "erg.startupSeconds" . | int64) (int64 $startup.periodSeconds)) }}
readinessProbe:
  {{- include "erg.readyCheck" . | nindent 2 }}
  {{- with .Values.probes.readiness }}
  periodSeconds: {{ .periodSeconds }}
  timeoutSeconds: {{ .timeoutSeconds }}
  failureThreshold: {{ .failureThreshold }}
  {{- end }}
livenessProbe:
  httpGet:
    path: /livez
    port: metrics
  {{- with .Values.probes.liveness }}
  periodSeconds: {{ .periodSeconds }}
  timeoutSeconds: {{ .timeoutSeconds }}
  failureThreshold: {{ .failureThreshold }}
  {{- end }}
{{- end }}
