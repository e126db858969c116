{{/* Names and labels. */}}

{{- define "erg.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{/* At most 50 characters, so that a suffix, an ordinal and a revision still fit into a label. */}}
{{- define "erg.fullname" -}}
{{- $name := include "erg.name" . -}}
{{- $both := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $both | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "erg.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "erg.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end }}

{{/* What tells this release's servers from everything else; immutable in a Deployment. */}}
{{- define "erg.selector" -}}
{{ include "erg.selectorOf" (list . "server") }}
{{- end }}

{{/* The same for another component: (list context component). */}}
{{- define "erg.selectorOf" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ include "erg.name" $ }}
app.kubernetes.io/instance: {{ $.Release.Name | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "erg.labels" -}}
{{ include "erg.labelsOf" (list . "server") }}
{{- end }}

{{- define "erg.labelsOf" -}}
{{- $ := index . 0 -}}
{{ include "erg.selectorOf" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Of the pods: without the chart's version, which must not roll them by itself. */}}
{{- define "erg.podLabels" -}}
{{ include "erg.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- with merge (dict) .Values.podLabels .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Name, namespace and labels: (list context suffix component). */}}
{{- define "erg.metadata" -}}
{{- $ := index . 0 -}}
name: {{ include "erg.fullname" $ }}{{ index . 1 }}
namespace: {{ $.Release.Namespace }}
labels:
  {{- include "erg.labelsOf" (list $ (index . 2)) | nindent 2 }}
{{- end }}
