{{/* What services, routes and policies have in common. */}}

{{- define "erg.appProtocol" -}}
{{- .Values.service.appProtocol | default (ternary "https" "kubernetes.io/h2c" .Values.tls.enabled) -}}
{{- end }}

{{/* Names that callers reach the servers by. */}}
{{- define "erg.dnsNames" -}}
{{- $name := include "erg.fullname" . -}}
{{- $domain := printf "%s.svc" .Release.Namespace -}}
- {{ $name }}
- {{ $name }}.{{ .Release.Namespace }}
- {{ $name }}.{{ $domain }}
- {{ $name }}.{{ $domain }}.cluster.local
- {{ $name }}-headless
- {{ $name }}-headless.{{ .Release.Namespace }}
- {{ $name }}-headless.{{ $domain }}
- {{ $name }}-headless.{{ $domain }}.cluster.local
{{- with .Values.tls.certManager.dnsNames }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "erg.dnsEgress" -}}
{{- with .Values.networkPolicy.dns.to }}
- to:
    {{- toYaml . | nindent 4 }}
  ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- end }}
{{- end }}
