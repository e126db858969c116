{{/* What follows from the values and is asked in more than one place. A fact that does not hold is the empty string. */}}

{{- define "erg.usesGpu" -}}
{{- if or (gt (int .Values.gpu.count) 0) .Values.gpu.mig.profile -}}true{{- end -}}
{{- end }}

{{/* Where the models come from: claim, image, fetch, store or, without any, builtin. */}}
{{- define "erg.source" -}}
{{- with .Values.models -}}
{{- if .persistentVolumeClaim.claimName -}}claim
{{- else if .image.reference -}}image
{{- else if .fetch.from -}}fetch
{{- else if .repositories -}}store
{{- else -}}builtin
{{- end -}}
{{- end -}}
{{- end }}

{{/* Whether the pods call out at all. */}}
{{- define "erg.callsOut" -}}
{{- if has (include "erg.source" .) (list "fetch" "store") -}}true{{- end -}}
{{- end }}

{{- define "erg.autoscaled" -}}
{{- if or .Values.autoscaling.hpa.enabled .Values.autoscaling.keda.enabled -}}true{{- end -}}
{{- end }}

{{- define "erg.workloadKind" -}}
{{- ternary "StatefulSet" "Deployment" .Values.cache.persistence.enabled -}}
{{- end }}

{{- define "erg.kubernetes" -}}
{{- $at := index . 0 -}}
{{- if semverCompare (printf ">=%s-0" (index . 1)) $at.Capabilities.KubeVersion.Version -}}true{{- end -}}
{{- end }}

{{- define "erg.grpcPort" -}}
{{- .Values.config.grpc_port | default 8001 | int64 -}}
{{- end }}

{{- define "erg.metricsPort" -}}
{{- .Values.config.metrics_port | default 8002 | int64 -}}
{{- end }}

{{- define "erg.image" -}}
{{- $flavour := ternary "cuda" "cpu" (eq (include "erg.usesGpu" .) "true") -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}
{{- else -}}{{ .repository }}:{{ .tag | default (printf "%s-%s" $.Chart.AppVersion $flavour) }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "erg.tlsSecretName" -}}
{{- .Values.tls.secretName | default (printf "%s-tls" (include "erg.fullname" .)) -}}
{{- end }}

{{/* Seconds that reading and loading the stated models takes at the stated rate. */}}
{{- define "erg.loadSeconds" -}}
{{- div (add (int64 .Values.models.totalSizeBytes) (sub (int64 .Values.probes.startup.bytesPerSecond) 1)) (int64 .Values.probes.startup.bytesPerSecond) -}}
{{- end }}

{{- define "erg.startupSeconds" -}}
{{- add (int64 .Values.probes.startup.baseSeconds) (include "erg.loadSeconds" . | int64) -}}
{{- end }}

{{/* The pause, the delay, the time to finish, and 10 s to end processes in. */}}
{{- define "erg.graceSeconds" -}}
{{- add .Values.drain.preStopSeconds .Values.drain.drainDelaySeconds .Values.drain.exitTimeoutSeconds 10 -}}
{{- end }}

{{/* Models that `helm test` calls, by lines. Without a name it has nothing to call. */}}
{{- define "erg.testModels" -}}
{{- $named := without (.Values.config.load_model | default list) "*" -}}
{{- $builtin := ternary (list "identity") list (eq (include "erg.source" .) "builtin") -}}
{{- if .Values.test.enabled -}}
{{- .Values.test.models | default .Values.probes.readiness.models | default $named | default $builtin | join "\n" -}}
{{- end -}}
{{- end }}
