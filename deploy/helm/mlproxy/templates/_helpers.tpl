{{- define "mlproxy.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "mlproxy.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "mlproxy.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "mlproxy.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "mlproxy.selector" -}}
app.kubernetes.io/name: {{ include "mlproxy.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "mlproxy.labels" -}}
{{ include "mlproxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "mlproxy.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "mlproxy.fullname" .) -}}
{{- end -}}

{{- define "mlproxy.isPostgres" -}}
{{- if eq .Values.database.kind "postgres" }}true{{ end -}}
{{- end -}}

{{/* What runs: a list of {role, replicas}. One process holds a SQLite file. */}}
{{- define "mlproxy.workloads" -}}
{{- $workloads := list -}}
{{- if include "mlproxy.isPostgres" . -}}
{{- range $role := list "all" "api" "replay" -}}
{{- $replicas := int (get $.Values.replicas $role) -}}
{{- if $replicas -}}
{{- $workloads = append $workloads (dict "role" $role "replicas" $replicas) -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- $workloads = list (dict "role" "all" "replicas" 1) -}}
{{- end -}}
{{- toYaml $workloads -}}
{{- end -}}

{{/* How many replicas answer clients. */}}
{{- define "mlproxy.servingReplicas" -}}
{{- if include "mlproxy.isPostgres" . }}{{ add (int .Values.replicas.all) (int .Values.replicas.api) }}{{ else }}1{{ end -}}
{{- end -}}

{{/* Every name the door lets in. $(POD_IP) is put in by Kubernetes: that is how Prometheus asks. */}}
{{- define "mlproxy.allowedHosts" -}}
{{- $service := include "mlproxy.fullname" . -}}
{{- $hosts := list "localhost" "127.0.0.1" "$(POD_IP)" $service (printf "%s.%s" $service .Release.Namespace) (printf "%s.%s.svc" $service .Release.Namespace) (printf "%s.%s.svc.cluster.local" $service .Release.Namespace) -}}
{{- if and .Values.ingress.enabled .Values.ingress.host -}}
{{- $hosts = append $hosts .Values.ingress.host -}}
{{- end -}}
{{- join "," (concat $hosts .Values.allowedHosts | uniq) -}}
{{- end -}}

{{/* What the schema of the values cannot say. */}}
{{- define "mlproxy.check" -}}
{{- if include "mlproxy.isPostgres" . -}}
{{- if not .Values.database.urlSecret.name -}}
{{- fail "database.urlSecret.name: name the Secret that holds postgresql://user:password@host/database" -}}
{{- end -}}
{{- if lt (int (include "mlproxy.servingReplicas" .)) 1 -}}
{{- fail "replicas: at least one of `all` or `api` has to answer clients" -}}
{{- end -}}
{{- if and (eq 0 (int .Values.replicas.all)) (eq 0 (int .Values.replicas.replay)) -}}
{{- fail "replicas: at least one of `all` or `replay` has to deliver to the workspace" -}}
{{- end -}}
{{- else if regexMatch "azure-?(file|blob)|nfs|smb|cifs" (lower .Values.storage.data.storageClass) -}}
{{- fail (printf "storage.data.storageClass: %s is a network file system, where SQLite cannot keep its promises; take a disk, or database.kind=postgres" .Values.storage.data.storageClass) -}}
{{- end -}}
{{- if and (eq .Values.credential "service-principal") (not .Values.azure.clientSecret.name) -}}
{{- fail "azure.clientSecret.name: name the Secret that holds the client's secret" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.host: name the host that clients use" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.tlsSecret) -}}
{{- fail "ingress.tlsSecret: name the Secret with the certificate; keys must not travel in the clear" -}}
{{- end -}}
{{- if and .Values.metrics.podMonitor.enabled (not .Values.metrics.podMonitor.keySecret.name) -}}
{{- fail "metrics.podMonitor.keySecret.name: name the Secret with a key of the role `read`" -}}
{{- end -}}
{{- end -}}
