{{/* What a schema cannot say: values that exclude each other. All that is wrong is told at once. */}}

{{- define "erg.checks" -}}
{{- $wrong := concat
  (include "erg.checks.models" . | fromYamlArray)
  (include "erg.checks.config" . | fromYamlArray)
  (include "erg.checks.pods" . | fromYamlArray)
  (include "erg.checks.scaling" . | fromYamlArray)
  (include "erg.checks.network" . | fromYamlArray) -}}
{{- if $wrong -}}
{{- printf "\n\nThese values do not fit together:\n- %s\n" (join "\n- " $wrong) | fail -}}
{{- end -}}
{{- end }}

{{- define "erg.checks.models" -}}
{{- $stated := list -}}
{{- with .Values.models -}}
{{- if .persistentVolumeClaim.claimName }}{{ $stated = append $stated "models.persistentVolumeClaim.claimName" }}{{ end -}}
{{- if .image.reference }}{{ $stated = append $stated "models.image.reference" }}{{ end -}}
{{- if .fetch.from }}{{ $stated = append $stated "models.fetch.from" }}{{ end -}}
{{- if .repositories }}{{ $stated = append $stated "models.repositories" }}{{ end -}}
{{- end -}}
{{- if gt (len $stated) 1 }}
- {{ printf "models come from one source, not from %s" (join " and " $stated) | quote }}
{{- end }}
{{- if and .Values.models.credentialsSecret (not (include "erg.callsOut" .)) }}
- "models.credentialsSecret is for models.fetch.from or models.repositories; nothing else reads object storage"
{{- end }}
{{- if and .Values.models.requireDigests (not (include "erg.callsOut" .)) }}
- "models.requireDigests is for models.fetch.from or models.repositories; the digests of other sources are checked as models load"
{{- end }}
{{- if and .Values.models.image.reference (not (include "erg.kubernetes" (list . "1.31"))) }}
- {{ printf "models.image needs Kubernetes 1.31, and this is %s" .Capabilities.KubeVersion.Version | quote }}
{{- else if and .Values.models.image.subPath (not (include "erg.kubernetes" (list . "1.33"))) }}
- {{ printf "models.image.subPath needs Kubernetes 1.33, and this is %s" .Capabilities.KubeVersion.Version | quote }}
{{- end }}
{{- end }}

{{- define "erg.checks.config" -}}
{{- $owners := dict "model_repository" "models" "model_cache" "cache" "require_digests" "models.requireDigests" "price_file" "prices" "grpc_use_ssl" "tls.enabled" "grpc_use_ssl_mutual" "tls.mutual.enabled" "grpc_server_cert" "tls" "grpc_server_key" "tls" "grpc_root_cert" "tls.mutual" "drain_delay_secs" "drain.drainDelaySeconds" "exit_timeout_secs" "drain.exitTimeoutSeconds" -}}
{{- range $name, $owner := $owners }}
{{- if hasKey $.Values.config $name }}
- {{ printf "config.%s is set by the chart; state %s instead" $name $owner | quote }}
{{- end }}
{{- end }}
{{- if eq (include "erg.grpcPort" .) (include "erg.metricsPort" .) }}
- "config.grpc_port and config.metrics_port are the same port"
{{- end }}
{{- if and .Values.config.load_model (ne (.Values.config.model_control_mode | default "none") "explicit") }}
- "config.load_model needs config.model_control_mode: explicit; other modes load what is there"
{{- end }}
{{- with .Values.prices }}
{{- if not (or (hasKey . "usd_per_kwh") .device_hour_usd .carbon) }}
- "prices names no price: state prices.device_hour_usd, prices.usd_per_kwh or prices.carbon"
{{- end }}
{{- if eq (toString $.Values.config.metering) "false" }}
- "prices needs config.metering, which counts what they price"
{{- end }}
{{- end }}
{{- end }}

{{- define "erg.checks.pods" -}}
{{- if and (gt (int .Values.gpu.count) 0) .Values.gpu.mig.profile }}
- "gpu.count and gpu.mig.profile: a pod has whole GPUs or MIG instances, not both"
{{- end }}
{{- if .Values.guaranteed }}
{{- $limits := .Values.resources.limits | default dict }}
{{- if not (regexMatch "^[1-9][0-9]*$" ($limits.cpu | default "" | toString)) }}
- {{ printf "guaranteed takes a whole number of CPUs in resources.limits.cpu, not '%v'" ($limits.cpu | default "") | quote }}
{{- end }}
{{- if not $limits.memory }}
- "guaranteed needs resources.limits.memory"
{{- end }}
{{- end }}
{{- if and (ne .Values.podAntiAffinity "none") .Values.affinity.podAntiAffinity }}
- "podAntiAffinity and affinity.podAntiAffinity: state one of them"
{{- end }}
{{- if and (has (toString .Values.rollout.maxSurge) (list "0" "0%")) (has (toString .Values.rollout.maxUnavailable) (list "0" "0%")) }}
- "rollout.maxSurge and rollout.maxUnavailable are both 0: no pod could ever be replaced"
{{- end }}
{{- if and .Values.podDisruptionBudget.enabled (ne (toString .Values.podDisruptionBudget.minAvailable) "<nil>") (ne (toString .Values.podDisruptionBudget.maxUnavailable) "<nil>") }}
- "podDisruptionBudget.minAvailable and podDisruptionBudget.maxUnavailable: state one of them"
{{- end }}
{{- with .Values.probes.readiness }}
{{- if .grpc }}
{{- if $.Values.tls.enabled }}
- "probes.readiness.grpc cannot be used with tls.enabled: the kubelet's gRPC probe speaks no TLS"
{{- end }}
{{- if gt (len .models) 1 }}
- "probes.readiness.grpc asks for one model; probes.readiness.models names more"
{{- end }}
{{- if not (include "erg.kubernetes" (list $ "1.24")) }}
- {{ printf "probes.readiness.grpc needs Kubernetes 1.24, and this is %s" $.Capabilities.KubeVersion.Version | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "erg.checks.scaling" -}}
{{- with .Values.autoscaling }}
{{- if and .hpa.enabled .keda.enabled }}
- "autoscaling.hpa.enabled and autoscaling.keda.enabled: KEDA makes a HorizontalPodAutoscaler of its own, and two would fight"
{{- end }}
{{- if and (or .hpa.enabled .keda.enabled) (ne (toString $.Values.replicaCount) "<nil>") }}
- "replicaCount is fixed while autoscaling is on: leave it null, and state autoscaling.minReplicas"
{{- end }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
- {{ printf "autoscaling.minReplicas %v is above autoscaling.maxReplicas %v" .minReplicas .maxReplicas | quote }}
{{- end }}
{{- if and .hpa.enabled (not (include "erg.kubernetes" (list $ "1.23"))) }}
- {{ printf "autoscaling.hpa needs Kubernetes 1.23 (autoscaling/v2), and this is %s" $.Capabilities.KubeVersion.Version | quote }}
{{- end }}
{{- if and .keda.enabled (not .keda.serverAddress) }}
- "autoscaling.keda needs autoscaling.keda.serverAddress, the address of Prometheus"
{{- end }}
{{- with .keda.scaleToZero }}
{{- if and .enabled (not .activationTriggers) }}
- "autoscaling.keda.scaleToZero needs activationTriggers: a server that does not run cannot tell of its first caller"
{{- end }}
{{- if and .activationTriggers (not .enabled) }}
- "autoscaling.keda.scaleToZero.activationTriggers are stated, and scaleToZero.enabled is false"
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.monitoring.serviceMonitor.enabled .Values.monitoring.podMonitor.enabled }}
- "monitoring.serviceMonitor and monitoring.podMonitor: every sample would be there twice, and autoscaling would see twice the load"
{{- end }}
{{- end }}

{{- define "erg.checks.network" -}}
{{- with .Values.tls }}
{{- if .enabled }}
{{- if and .secretName .certManager.enabled }}
- "tls.secretName and tls.certManager.enabled: the certificate comes from one of them"
{{- else if not (or .secretName .certManager.enabled) }}
- "tls.enabled needs a certificate: state tls.secretName, or tls.certManager.enabled with an issuer"
{{- end }}
{{- if and .certManager.enabled (not .certManager.issuerRef.name) }}
- "tls.certManager needs tls.certManager.issuerRef.name"
{{- end }}
{{- else if or .secretName .certManager.enabled .mutual.enabled }}
- "tls is stated, and tls.enabled is false: the server would answer in the clear"
{{- end }}
{{- end }}
{{- if and .Values.gateway.enabled (not .Values.gateway.parentRefs) }}
- "gateway.enabled needs gateway.parentRefs, the gateways that the route belongs to"
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
- "ingress.enabled needs ingress.hosts"
{{- end }}
{{- end }}
