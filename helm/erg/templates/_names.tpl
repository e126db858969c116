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

{{/* All labels of an object: (list context component more). What the chart sets wins. */}}
{{- define "erg.labels" -}}
{{- $ := index . 0 -}}
{{- $own := include "erg.selectorOf" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/version" $.Chart.AppVersion -}}
{{- $_ = set $own "app.kubernetes.io/managed-by" $.Release.Service -}}
{{- $_ = set $own "helm.sh/chart" (printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- toYaml (merge $own (index . 2) $.Values.commonLabels) -}}
{{- end }}

{{/* Of the pods: without the chart's version, which must not roll them by itself. */}}
{{- define "erg.podLabels" -}}
{{- toYaml (omit (include "erg.labels" (list . "server" .Values.podLabels) | fromYaml) "helm.sh/chart" "app.kubernetes.io/managed-by") -}}
{{- end }}

{{/* Name, namespace and labels: (list context suffix component more-labels). */}}
{{- define "erg.metadata" -}}
{{- $ := index . 0 -}}
{{- $more := ternary (last .) dict (eq (len .) 4) -}}
name: {{ include "erg.fullname" $ }}{{ index . 1 }}
namespace: {{ $.Release.Namespace }}
labels:
  {{- include "erg.labels" (list $ (index . 2) $more) | nindent 2 }}
{{- end }}
