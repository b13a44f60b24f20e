{{/* One replica. Takes {root, role}. */}}
{{- define "mlproxy.pod" -}}
{{- $root := .root -}}
{{- $isPostgres := include "mlproxy.isPostgres" $root -}}
{{- with $root.Values -}}
serviceAccountName: {{ include "mlproxy.serviceAccountName" $root }}
automountServiceAccountToken: false
# A Service named mlproxy would otherwise set MLPROXY_PORT=tcp://… in every pod.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ add 40 (ternary (int .stopDelaySeconds) 0 (eq $isPostgres "true")) }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or (not $isPostgres) .database.migrate }}
initContainers:
  - name: migrate
    {{- include "mlproxy.container" $root | nindent 4 }}
    args: [migrate]
    env: {{- include "mlproxy.env" (dict "root" $root "role" "all") | nindent 6 }}
{{- end }}
containers:
  - name: mlproxy
    {{- include "mlproxy.container" $root | nindent 4 }}
    args: [serve]
    env: {{- include "mlproxy.env" (dict "root" $root "role" $.role) | nindent 6 }}
    ports:
      - name: http
        containerPort: 5000
    startupProbe:
      {{- include "mlproxy.probe" "/health/live" | nindent 6 }}
      periodSeconds: 2
      failureThreshold: 150
    livenessProbe:
      {{- include "mlproxy.probe" "/health/live" | nindent 6 }}
      periodSeconds: 10
      failureThreshold: 6
    readinessProbe:
      {{- include "mlproxy.probe" "/health/ready" | nindent 6 }}
      periodSeconds: {{ ternary 2 5 (eq $isPostgres "true") }}
      failureThreshold: 2
volumes:
  - name: tmp
    emptyDir: {}
  {{- if .adminKeySecret.name }}
  - name: admin-key
    secret:
      secretName: {{ .adminKeySecret.name }}
      defaultMode: 0440
  {{- end }}
  {{- if $isPostgres }}
  - name: data
    emptyDir: {}
  - name: spool
    persistentVolumeClaim:
      claimName: {{ .storage.spool.existingClaim | default (printf "%s-spool" (include "mlproxy.fullname" $root)) }}
  {{- else }}
  - name: data
    persistentVolumeClaim:
      claimName: {{ .storage.data.existingClaim | default (printf "%s-data" (include "mlproxy.fullname" $root)) }}
  {{- end }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $isPostgres }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "mlproxy.selector" $root | nindent 8 }}
        app.kubernetes.io/component: {{ $.role }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What every container of ours has. */}}
{{- define "mlproxy.container" -}}
image: {{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
resources: {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - name: tmp
    mountPath: /tmp
  - name: data
    mountPath: /data
  {{- if .Values.adminKeySecret.name }}
  - name: admin-key
    mountPath: /run/mlproxy
    readOnly: true
  {{- end }}
  {{- if include "mlproxy.isPostgres" . }}
  - name: spool
    mountPath: /spool
  {{- end }}
{{- end -}}

{{/* The server answers only to host names it knows; the kubelet asks as localhost. */}}
{{- define "mlproxy.probe" -}}
httpGet:
  path: {{ . }}
  port: http
  httpHeaders:
    - name: Host
      value: localhost
timeoutSeconds: 5
{{- end -}}

{{/* The settings. Takes {root, role}. */}}
{{- define "mlproxy.env" -}}
{{- $root := .root -}}
{{- with $root.Values -}}
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: MLPROXY_AUTH
  value: keys
- name: MLPROXY_LOG_FORMAT
  value: json
- name: MLPROXY_ALLOWED_HOSTS
  value: {{ include "mlproxy.allowedHosts" $root | quote }}
{{- with .trustedProxies }}
- name: MLPROXY_TRUSTED_PROXIES
  value: {{ join "," . | quote }}
{{- end }}
{{- if and .ingress.enabled .ingress.host (not (hasKey .settings "MLPROXY_PUBLIC_URL")) }}
- name: MLPROXY_PUBLIC_URL
  value: {{ printf "https://%s" .ingress.host | quote }}
{{- end }}
{{- if .workspace }}
- name: MLPROXY_WORKSPACE
  value: {{ .workspace | quote }}
{{- end }}
- name: MLPROXY_CREDENTIAL
  value: {{ .credential }}
{{- /* Workload identity's webhook sets these itself, from the service account. */}}
{{- if and .azure.clientId (ne .credential "workload-identity") }}
- name: AZURE_CLIENT_ID
  value: {{ .azure.clientId | quote }}
{{- end }}
{{- if and .azure.tenantId (ne .credential "workload-identity") }}
- name: AZURE_TENANT_ID
  value: {{ .azure.tenantId | quote }}
{{- end }}
{{- if eq .credential "service-principal" }}
- name: AZURE_CLIENT_SECRET
  valueFrom:
    secretKeyRef:
      name: {{ .azure.clientSecret.name }}
      key: {{ .azure.clientSecret.key }}
{{- end }}
{{- if eq .database.kind "postgres" }}
- name: MLPROXY_ROLE
  value: {{ $.role }}
- name: MLPROXY_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .database.urlSecret.name }}
      key: {{ .database.urlSecret.key }}
- name: MLPROXY_SPOOL_DIR
  value: /spool
- name: MLPROXY_STOP_DELAY_SECONDS
  value: {{ .stopDelaySeconds | quote }}
{{- end }}
{{- if .adminKeySecret.name }}
- name: MLPROXY_ADMIN_KEY_FILE
  value: /run/mlproxy/{{ .adminKeySecret.key }}
{{- end }}
{{- range $name, $value := .settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with .env }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}
