{{/* The settings file of `erg serve`, the price file, and the built-in model. */}}

{{/* A value of TOML. A whole number is written as one: YAML's numbers come as floats, which an integer setting refuses. */}}
{{- define "erg.tomlValue" -}}
{{- if kindIs "slice" . -}}
[{{- range $number, $each := . }}{{ if $number }}, {{ end }}{{ toJson $each }}{{ end -}}]
{{- else if or (kindIs "string" .) (kindIs "bool" .) -}}
{{- toJson . -}}
{{- else if eq (. | toString | float64) (. | int64 | float64) -}}
{{- int64 . -}}
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end }}

{{/* Settings that follow from other values, as YAML. */}}
{{- define "erg.ownedSettings" -}}
{{- if eq (include "erg.source" .) "store" }}
model_repository: {{ toJson .Values.models.repositories }}
model_cache: /var/cache/erg/models
require_digests: {{ .Values.models.requireDigests }}
{{- else }}
model_repository: ["/models"]
{{- end }}
drain_delay_secs: {{ .Values.drain.drainDelaySeconds }}
exit_timeout_secs: {{ .Values.drain.exitTimeoutSeconds }}
{{- if .Values.prices }}
price_file: /etc/erg/prices.toml
{{- end }}
{{- if .Values.tls.enabled }}
grpc_use_ssl: true
grpc_server_cert: /etc/erg-tls/tls.crt
grpc_server_key: /etc/erg-tls/tls.key
{{- if .Values.tls.mutual.enabled }}
grpc_use_ssl_mutual: true
grpc_root_cert: /etc/erg-roots/roots.pem
{{- end }}
{{- end }}
{{- end }}

{{- define "erg.settings" -}}
{{- range $name, $value := merge (include "erg.ownedSettings" . | fromYaml) .Values.config }}
{{ $name }} = {{ include "erg.tomlValue" $value }}
{{- end }}
{{- end }}

{{- define "erg.prices" -}}
{{- with .Values.prices }}
{{- range $name, $value := omit . "device_hour_usd" "carbon" }}
{{ $name }} = {{ include "erg.tomlValue" $value }}
{{- end }}
{{- range $table := list "device_hour_usd" "carbon" }}
{{- with index $.Values.prices $table }}

[{{ $table }}]
{{- range $name, $value := . }}
{{ toJson $name }} = {{ include "erg.tomlValue" $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* All of the ConfigMap's data: a checksum of it in the pods' annotations rolls them when it changes. */}}
{{- define "erg.configData" -}}
erg.toml: |
  {{- include "erg.settings" . | trim | nindent 2 }}
{{- if .Values.prices }}
prices.toml: |
  {{- include "erg.prices" . | trim | nindent 2 }}
{{- end }}
{{- if eq (include "erg.source" .) "builtin" }}
identity.pbtxt: |
  {{- .Files.Get "files/identity.pbtxt" | trim | nindent 2 }}
identity-readme: |
  A version of the built-in model; it has no file of its own.
{{- end }}
{{- end }}
