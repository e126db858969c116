{{/* The pods of the Deployment or StatefulSet. */}}

{{- define "erg.affinity" -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" (include "erg.selector" . | fromYaml)) -}}
{{- $affinity := deepCopy .Values.affinity -}}
{{- if eq .Values.podAntiAffinity "required" -}}
{{- $_ := set $affinity "podAntiAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (list $term)) -}}
{{- else if eq .Values.podAntiAffinity "preferred" -}}
{{- $weighted := dict "weight" 100 "podAffinityTerm" $term -}}
{{- $_ := set $affinity "podAntiAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" (list $weighted)) -}}
{{- end -}}
{{- with $affinity }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{- define "erg.tolerations" -}}
{{- $gpu := and (include "erg.usesGpu" .) .Values.gpu.toleration -}}
{{- $own := ternary (list (dict "key" "nvidia.com/gpu" "operator" "Exists" "effect" "NoSchedule")) list (not (not $gpu)) -}}
{{- with concat $own .Values.tolerations }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* A rollout's old pods do not count for where its new ones go (matchLabelKeys, Kubernetes 1.27). */}}
{{- define "erg.topologySpread" -}}
{{- range .Values.topologySpread }}
- topologyKey: {{ .topologyKey }}
  maxSkew: {{ .maxSkew | default 1 }}
  whenUnsatisfiable: {{ .whenUnsatisfiable | default "ScheduleAnyway" }}
  labelSelector:
    matchLabels:
      {{- include "erg.selector" $ | nindent 6 }}
  {{- if include "erg.kubernetes" (list $ "1.27") }}
  matchLabelKeys: [{{ ternary "controller-revision-hash" "pod-template-hash" $.Values.cache.persistence.enabled }}]
  {{- end }}
{{- end }}
{{- end }}

{{- define "erg.fetchContainer" -}}
- name: fetch
  image: {{ include "erg.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
    - fetch
    {{- range .Values.models.fetch.from }}
    - --model-repository
    - {{ . | quote }}
    {{- end }}
    {{- range .Values.models.fetch.models }}
    - --model
    - {{ . | quote }}
    {{- end }}
    {{- if .Values.models.requireDigests }}
    - --require-digests
    {{- end }}
    - --to
    - /models
  {{- with concat (include "erg.credentials" (list . "fetch") | fromYamlArray) .Values.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.extraEnv }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "erg.containerSecurityContext" . | nindent 4 }}
  resources:
    {{- include "erg.resources" (list . .Values.models.fetch.resources) | nindent 4 }}
  volumeMounts:
    - {{ include "erg.modelsMount" . | nindent 6 | trim }}
    - name: tmp
      mountPath: /tmp
{{- end }}

{{- define "erg.serverContainer" -}}
- name: erg
  image: {{ include "erg.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [serve, --settings, /etc/erg/erg.toml]
  ports:
    - name: grpc
      containerPort: {{ include "erg.grpcPort" . }}
      protocol: TCP
    - name: metrics
      containerPort: {{ include "erg.metricsPort" . }}
      protocol: TCP
  {{- with concat (include "erg.credentials" (list . "store") | fromYamlArray) .Values.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.extraEnv }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "erg.containerSecurityContext" . | nindent 4 }}
  resources:
    {{- include "erg.serverResources" . | nindent 4 }}
  {{- include "erg.probes" . | nindent 2 }}
  {{- with include "erg.lifecycle" . }}
  lifecycle:
    {{- . | trim | nindent 4 }}
  {{- end }}
  volumeMounts:
    {{- include "erg.serverMounts" . | nindent 4 }}
{{- end }}

{{- define "erg.pod" -}}
metadata:
  labels:
    {{- include "erg.podLabels" . | nindent 4 }}
  annotations:
    checksum/config: {{ include "erg.configData" . | sha256sum }}
    kubectl.kubernetes.io/default-container: erg
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "erg.serviceAccountName" . }}
  automountServiceAccountToken: false
  # A service named erg would put ERG_PORT and the like into the environment, which are settings.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "erg.graceSeconds" . }}
  securityContext:
    {{- include "erg.podSecurityContext" . | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "erg.tolerations" . }}
  tolerations:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with include "erg.affinity" . }}
  affinity:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with include "erg.topologySpread" . | trim }}
  topologySpreadConstraints:
    {{- . | nindent 4 }}
  {{- end }}
  {{- if eq (include "erg.source" .) "fetch" }}
  initContainers:
    {{- include "erg.fetchContainer" . | nindent 4 }}
  {{- end }}
  containers:
    {{- include "erg.serverContainer" . | nindent 4 }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "erg.volumes" . | nindent 4 }}
{{- end }}
