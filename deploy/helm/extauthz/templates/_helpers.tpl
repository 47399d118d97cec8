{{- define "extauthz.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "extauthz.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "extauthz.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "extauthz.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "extauthz.selector" -}}
app.kubernetes.io/name: {{ include "extauthz.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "extauthz.labels" -}}
{{ include "extauthz.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "extauthz.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "extauthz.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "extauthz.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* extauthz.yaml: what the chart decides, over what the values say. */ -}}
{{- define "extauthz.config" -}}
{{- $server := dict "listen" "0.0.0.0:9001" "ops" "0.0.0.0:9090" -}}
{{- if .Values.tls.existingSecret -}}
{{- $_ := set $server "tls" (dict "certificate" "tls/tls.crt" "key" "tls/tls.key" "client_ca" "tls/ca.crt") -}}
{{- end -}}
{{- mergeOverwrite (deepCopy .Values.config) (dict "server" $server) | toYaml -}}
{{- end -}}

{{- define "extauthz.console" -}}
{{- printf "%s-console" (include "extauthz.fullname" . | trunc 55 | trimSuffix "-") -}}
{{- end -}}

{{- /* Another name than that of the sidecars, whose Service and policy must not take the console for one of them. */ -}}
{{- define "extauthz.consoleSelector" -}}
app.kubernetes.io/name: {{ printf "%s-console" (include "extauthz.name" . | trunc 55 | trimSuffix "-") }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "extauthz.consoleLabels" -}}
{{ include "extauthz.consoleSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* The sidecars' extauthz.yaml, with what console.config says otherwise: the account of the store above all. */ -}}
{{- define "extauthz.consoleConfig" -}}
{{- $decided := dict "server" (dict "listen" "127.0.0.1:9001") "console" (dict "listen" "0.0.0.0:9003" "ops" "0.0.0.0:9091") -}}
{{- mergeOverwrite (deepCopy .Values.config) (deepCopy .Values.console.config) $decided | toYaml -}}
{{- end -}}
