{{/* What the containers of the pods have in common. */}}

{{- define "erg.containerSecurityContext" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "erg.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.podSecurityContext }}
{{- range $name := list "runAsUser" "runAsGroup" "fsGroup" }}
{{- with index $.Values.podSecurityContext $name }}
{{ $name }}: {{ int64 . }}
{{- end }}
{{- end }}
{{- if .fsGroup }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
{{- with .supplementalGroups }}
supplementalGroups: {{ toJson . }}
{{- end }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Requests and limits, equal where the pod is to be Guaranteed: (list context resources). */}}
{{- define "erg.resources" -}}
{{- $stated := index . 1 -}}
{{- if (index . 0).Values.guaranteed -}}
{{- $stated = dict "limits" $stated.limits "requests" $stated.limits -}}
{{- end -}}
{{- toYaml $stated -}}
{{- end }}

{{/* The server's, with its devices. An extended resource has its limit as its request. */}}
{{- define "erg.serverResources" -}}
{{- $stated := deepCopy .Values.resources -}}
{{- with .Values.gpu -}}
{{- $device := dict -}}
{{- if .mig.profile -}}
{{- $_ := set $device (printf "nvidia.com/mig-%s" .mig.profile) (int64 .mig.count) -}}
{{- else if gt (int .count) 0 -}}
{{- $_ := set $device .resourceName (int64 .count) -}}
{{- end -}}
{{- $_ := set $stated "limits" (merge $device ($stated.limits | default dict)) -}}
{{- end -}}
{{- include "erg.resources" (list . $stated) -}}
{{- end }}

{{/* Credentials go to what reads object storage, and nowhere else: (list context source). */}}
{{- define "erg.credentials" -}}
{{- $ := index . 0 -}}
{{- if and $.Values.models.credentialsSecret (eq (include "erg.source" $) (index . 1)) -}}
- secretRef:
    name: {{ $.Values.models.credentialsSecret }}
{{- end -}}
{{- end }}

{{/* `sleep` as an action came with Kubernetes 1.30; before it the image's own program does it. */}}
{{- define "erg.lifecycle" -}}
{{- with .Values.drain.preStopSeconds }}
preStop:
  {{- if include "erg.kubernetes" (list $ "1.30") }}
  sleep:
    seconds: {{ . }}
  {{- else }}
  exec:
    command: [sleep, {{ toString . | quote }}]
  {{- end }}
{{- end }}
{{- end }}
