{{/* What both autoscalers have in common. */}}

{{- define "erg.scaleBehavior" -}}
{{- with .Values.autoscaling -}}
scaleUp:
  stabilizationWindowSeconds: {{ .scaleUp.stabilizationSeconds }}
  selectPolicy: Max
  policies:
    - type: Percent
      value: {{ .scaleUp.percent }}
      periodSeconds: {{ .scaleUp.periodSeconds }}
    - type: Pods
      value: 2
      periodSeconds: {{ .scaleUp.periodSeconds }}
scaleDown:
  stabilizationWindowSeconds: {{ .scaleDown.stabilizationSeconds }}
  policies:
    - type: Pods
      value: {{ .scaleDown.pods }}
      # 1800 is the API's bound.
      periodSeconds: {{ .scaleDown.periodSeconds | default (min 1800 (include "erg.graceSeconds" $ | int64)) }}
{{- end -}}
{{- end }}

{{- define "erg.scaleTarget" -}}
apiVersion: apps/v1
kind: {{ include "erg.workloadKind" . }}
name: {{ include "erg.fullname" . }}
{{- end }}

{{/* Pods by name, and not by a label that only one kind of monitor sets; narrow enough for a release with a longer name. */}}
{{- define "erg.scaleQuery" -}}
{{- $pods := ternary "[0-9]+" "[a-z0-9]{6,10}-[a-z0-9]{5}" .Values.cache.persistence.enabled -}}
{{- printf "sum(erg_replicas_needed{namespace=%q,pod=~%q})" .Release.Namespace (printf "%s-%s" (include "erg.fullname" .) $pods) -}}
{{- end }}
