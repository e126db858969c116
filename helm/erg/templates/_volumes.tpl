{{/* Volumes of the pods, and where they are mounted. */}}

{{/* Fetched models lie in the cache where it outlives the pod, so that they are fetched once. */}}
{{- define "erg.modelsMount" -}}
{{- if and (eq (include "erg.source" .) "fetch") .Values.cache.persistence.enabled -}}
name: cache
mountPath: /models
subPath: models
{{- else -}}
name: models
mountPath: /models
{{- with .Values.models.persistentVolumeClaim.subPath }}
subPath: {{ . | quote }}
{{- end }}
{{- with .Values.models.image.subPath }}
subPath: {{ . | quote }}
{{- end }}
{{- end -}}
{{- end }}

{{- define "erg.serverMounts" -}}
- name: config
  mountPath: /etc/erg
  readOnly: true
{{- if ne (include "erg.source" .) "store" }}
- {{ include "erg.modelsMount" . | nindent 2 | trim }}
  {{- if ne (include "erg.source" .) "builtin" }}
  readOnly: true
  {{- end }}
{{- end }}
{{- if eq (include "erg.source" .) "builtin" }}
# By subPath they are plain files; the links that a whole ConfigMap is mounted by are not followed in a repository.
- name: config
  mountPath: /models/identity/config.pbtxt
  subPath: identity.pbtxt
  readOnly: true
- name: config
  mountPath: /models/identity/1/README
  subPath: identity-readme
  readOnly: true
{{- end }}
- name: cache
  mountPath: /var/cache/erg
- name: tmp
  mountPath: /tmp
{{- if .Values.sharedMemory.sizeLimit }}
- name: shared-memory
  mountPath: /dev/shm
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls
  mountPath: /etc/erg-tls
  readOnly: true
{{- if .Values.tls.mutual.enabled }}
- name: tls-roots
  mountPath: /etc/erg-roots
  readOnly: true
{{- end }}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Room for twice the stated models, as a new version is there beside the old one for a while. In bytes, as text: a
large number would be written with an exponent. Where fetched models are of unknown size, a bound that seldom binds. */}}
{{- define "erg.modelsSizeLimit" -}}
{{- if or .Values.models.totalSizeBytes (not (include "erg.callsOut" .)) -}}
{{- add (mul 2 (int64 .Values.models.totalSizeBytes)) 1073741824 -}}
{{- else -}}
100Gi
{{- end -}}
{{- end }}

{{- define "erg.volumes" -}}
{{- $source := include "erg.source" . -}}
- name: config
  configMap:
    name: {{ include "erg.fullname" . }}
{{- if eq $source "claim" }}
- name: models
  persistentVolumeClaim:
    claimName: {{ .Values.models.persistentVolumeClaim.claimName }}
    readOnly: true
{{- else if eq $source "image" }}
- name: models
  image:
    reference: {{ .Values.models.image.reference | quote }}
    pullPolicy: {{ .Values.models.image.pullPolicy }}
{{- else if and (eq $source "fetch") (not .Values.cache.persistence.enabled) }}
- name: models
  emptyDir:
    sizeLimit: {{ include "erg.modelsSizeLimit" . | quote }}
{{- else if eq $source "builtin" }}
- name: models
  emptyDir:
    sizeLimit: 1Mi
{{- end }}
{{- if not .Values.cache.persistence.enabled }}
- name: cache
  emptyDir:
    sizeLimit: {{ .Values.cache.sizeLimit | default (ternary (include "erg.modelsSizeLimit" .) "1Gi" (eq $source "store")) | quote }}
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.tmp.sizeLimit | quote }}
{{- with .Values.sharedMemory.sizeLimit }}
- name: shared-memory
  emptyDir:
    medium: Memory
    sizeLimit: {{ . | quote }}
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ include "erg.tlsSecretName" . }}
    defaultMode: 0440
{{- if .Values.tls.mutual.enabled }}
- name: tls-roots
  secret:
    secretName: {{ .Values.tls.mutual.secretName | default (include "erg.tlsSecretName" .) }}
    defaultMode: 0440
    items:
      - key: {{ .Values.tls.mutual.key | quote }}
        path: roots.pem
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
