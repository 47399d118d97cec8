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

{{- define "extauthz.admin" -}}
{{- printf "%s-admin" (include "extauthz.fullname" . | trunc 57 | trimSuffix "-") -}}
{{- end -}}

{{- define "extauthz.adminSelector" -}}
app.kubernetes.io/name: {{ printf "%s-admin" (include "extauthz.name" . | trunc 57 | trimSuffix "-") }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "extauthz.adminLabels" -}}
{{ include "extauthz.adminSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* The sidecars' extauthz.yaml, with the account of the store that makes and revokes tokens. */ -}}
{{- define "extauthz.adminConfig" -}}
{{- mergeOverwrite (deepCopy .Values.config) (deepCopy .Values.admin.config) (dict "server" (dict "listen" "127.0.0.1:9001")) | toYaml -}}
{{- end -}}

{{- /* The peppers of whoever has any, as JSON: without tokens in `config` those of the console or of the admin. */ -}}
{{- define "extauthz.peppers" -}}
{{- $configs := list .Values.config -}}
{{- if .Values.console.enabled -}}{{- $configs = append $configs .Values.console.config -}}{{- end -}}
{{- if .Values.admin.enabled -}}{{- $configs = append $configs .Values.admin.config -}}{{- end -}}
{{- $peppers := list -}}
{{- range $configs -}}
{{- if not $peppers -}}{{- $peppers = (.tokens | default dict).peppers | default list -}}{{- end -}}
{{- end -}}
{{- toJson $peppers -}}
{{- end -}}

{{- /* The names of files in secrets/ that peppers (.peppers) name, with others (.with), as JSON. */ -}}
{{- define "extauthz.secretNames" -}}
{{- $names := .with -}}
{{- range .peppers -}}
{{- if regexMatch "^secrets/[A-Za-z0-9._-]+$" (.file | default "") -}}
{{- $names = append $names (trimPrefix "secrets/" .file) -}}
{{- end -}}
{{- end -}}
{{- $names | uniq | sortAlpha | toJson -}}
{{- end -}}

{{- /* What console and admin take of the sidecars' secret: every pepper that their configuration (.config) names and no secret of
their own has (.own), and who signed the certificate of the database. */ -}}
{{- define "extauthz.sharedSecrets" -}}
{{- $with := list -}}
{{- if has "store-ca.crt" .root.Values.secretFiles -}}{{- $with = list "store-ca.crt" -}}{{- end -}}
{{- $peppers := ((fromYaml .config).tokens | default dict).peppers | default list -}}
{{- $items := list -}}
{{- range include "extauthz.secretNames" (dict "peppers" $peppers "with" $with) | fromJsonArray -}}
{{- if not (has . $.own) -}}{{- $items = append $items (printf "{key: %s, path: secrets/%s}" . .) -}}{{- end -}}
{{- end -}}
{{- join ", " $items -}}
{{- end -}}

{{- /* How a pod looks up names, and what runs in it before and beside extauthz. */ -}}
{{- define "extauthz.podDetails" -}}
{{- with .root.Values.dnsPolicy -}}
dnsPolicy: {{ . }}
{{ end -}}
{{- with .root.Values.dnsConfig -}}
dnsConfig: {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .of.extraInitContainers -}}
initContainers: {{- toYaml . | nindent 2 }}
{{ end -}}
{{- end -}}

{{- /* Whom every pod asks for the addresses of names. */ -}}
{{- define "extauthz.dnsEgress" -}}
- to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
    {{- range .Values.networkPolicy.nodeLocalDNS }}
    - ipBlock: {cidr: {{ . }}/{{ ternary "128" "32" (contains ":" .) }}}
    {{- end }}
  ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
{{- end -}}

{{- /* Constraints (.constraints), each with the selector of its pods (.selector) unless it has one. */ -}}
{{- define "extauthz.spread" -}}
{{- $selector := fromYaml .selector -}}
{{- $complete := list -}}
{{- range .constraints -}}
{{- $own := ternary . (set (deepCopy .) "labelSelector" (dict "matchLabels" $selector)) (hasKey . "labelSelector") -}}
{{- $complete = append $complete $own -}}
{{- end -}}
{{- toYaml $complete -}}
{{- end -}}

{{- /* A pod with the account that makes and revokes tokens; what its container runs is .runs. */ -}}
{{- define "extauthz.adminPod" -}}
{{- $root := .root -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.admin.serviceAccountName | default (include "extauthz.serviceAccount" $root) }}
serviceAccountName: {{ . }}
{{- end }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "extauthz.podDetails" (dict "root" $root "of" $root.Values.admin) | trim }}
{{ . }}
{{- end }}
securityContext: {{- toYaml $root.Values.podSecurityContext | nindent 2 }}
containers:
  - name: admin
    image: {{ include "extauthz.image" $root }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    {{- toYaml .runs | nindent 4 }}
    {{- with $root.Values.admin.extraEnv }}
    env: {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext: {{- toYaml $root.Values.securityContext | nindent 6 }}
    resources: {{- toYaml $root.Values.admin.resources | nindent 6 }}
    volumeMounts:
      - {name: configuration, mountPath: /etc/extauthz, readOnly: true}
      {{- with $root.Values.admin.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  {{- with .beside }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumes:
  - name: configuration
    projected:
      defaultMode: 0440
      sources:
        - configMap: {name: {{ include "extauthz.admin" $root }}}
        - configMap:
            name: {{ include "extauthz.fullname" $root }}
            items:
              {{- range $name := append (keys $root.Values.routes | sortAlpha) "glean-client-api.yaml" }}
              - {key: {{ $name }}, path: {{ $name }}}
              {{- end }}
        {{- $shared := include "extauthz.sharedSecrets" (dict "root" $root "config" (include "extauthz.adminConfig" $root) "own" $root.Values.admin.secretFiles) }}
        {{- if and $root.Values.existingSecret $shared }}
        - secret:
            name: {{ $root.Values.existingSecret }}
            items: [{{ $shared }}]
        {{- end }}
        {{- with $root.Values.admin.existingSecret }}
        - secret:
            name: {{ . }}
            items:
              {{- range $root.Values.admin.secretFiles }}
              - {key: {{ . }}, path: {{ printf "secrets/%s" . }}}
              {{- end }}
        {{- end }}
  {{- with $root.Values.admin.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- range $name := list "nodeSelector" "tolerations" "affinity" }}
{{- with get $root.Values.admin $name | default (get $root.Values $name) }}
{{ $name }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "extauthz.adminJob" -}}
backoffLimit: 1
ttlSecondsAfterFinished: 86400
template:
  metadata:
    labels:
      {{- include "extauthz.adminLabels" .root | nindent 6 }}
      app.kubernetes.io/component: job
  spec:
    restartPolicy: Never
    {{- include "extauthz.adminPod" (dict "root" .root "runs" (dict "args" .args)) | nindent 4 }}
{{- end -}}
