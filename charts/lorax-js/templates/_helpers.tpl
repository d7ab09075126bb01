{{- define "lorax-js.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "lorax-js.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "lorax-js.labels" -}}
{{ include "lorax-js.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "lorax-js.image" -}}
{{- $kind := ternary "cuda" "cpu" .Values.gpu.enabled -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default (printf "%s-%s" .Chart.AppVersion $kind)) -}}
{{- end -}}

{{/* The Secret with keys and token; "" = there is none. */}}
{{- define "lorax-js.secretName" -}}
{{- with .Values.auth -}}
{{- if .existingSecret -}}
{{- .existingSecret -}}
{{- else if or .apiKey .adminKey .hfToken -}}
{{- include "lorax-js.name" $ -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether /metrics asks for the admin key: "true" or "". As the server decides it. */}}
{{- define "lorax-js.metricsNeedKey" -}}
{{- $metrics := .Values.config.metrics | default "" -}}
{{- $keys := or .Values.auth.existingSecret .Values.auth.apiKey .Values.auth.adminKey .Values.config.tenants -}}
{{- if or (eq $metrics "admin") (and (eq $metrics "") $keys) -}}true{{- end -}}
{{- end -}}

{{/* Seconds that the server gives to what is under way: serve's default is 30. */}}
{{- define "lorax-js.graceSeconds" -}}
{{- $ms := 30000 -}}
{{- if hasKey .Values.config "graceMs" -}}{{- $ms = .Values.config.graceMs -}}{{- end -}}
{{- div (add (int64 $ms) 999) 1000 -}}
{{- end -}}

{{/* One of the Secret's entries as a variable; one that is not there is unset. */}}
{{- define "lorax-js.secretVariable" -}}
- name: {{ .variable }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .key }}
      optional: true
{{- end -}}

{{/* What cannot work is refused here, with what to do. */}}
{{- define "lorax-js.check" -}}
{{- if not .Values.config.model -}}
{{- fail "config.model is required: org/name of the hub, or a directory of the volume models.existingClaim" -}}
{{- end -}}
{{- if or .Values.inferencePool.enabled .Values.serviceMonitor.enabled .Values.autoscaling.enabled -}}
{{- if eq (.Values.config.metrics | default "") "off" -}}
{{- fail "config.metrics is off: inferencePool, serviceMonitor and autoscaling read /metrics" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.inferencePool.enabled (include "lorax-js.metricsNeedKey" .) -}}
{{- fail "inferencePool: its endpoint picker reads /metrics without a key: set config.metrics to open (and networkPolicy, to say who reaches it)" -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (include "lorax-js.metricsNeedKey" .) -}}
{{- if not (or .Values.auth.existingSecret .Values.auth.adminKey) -}}
{{- fail "serviceMonitor: /metrics asks for the admin key: set auth.adminKey, auth.existingSecret (with admin-key), or config.metrics to open" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.host is required" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs is required: the Gateway it belongs to" -}}
{{- end -}}
{{- end -}}
