{{/* The job file (editr1.runs.job.StageJob), which tells the stage process what to do. Its path is in EDITR1_CONFIG.
     tests/unit/launch/test_job_file.py checks that it agrees with the job from which the chart values were made.
     Arguments: dict "root" $ "config" <settings> "rewardUrls" <list> "rewardDigest" <text> "rewardIdentity" <text> */}}
{{- define "editr1.jobFile" -}}
{{- $root := .root -}}
{{- with $root.Values -}}
{{- $store := dict
  "url" .store.url
  "secure" .store.secure
  "part_bytes" (.store.partBytes | int64)
  "transfers" (.store.transfers | int)
  "outage_seconds" (.store.outageSeconds | int64) -}}
{{- if .store.endpoint }}{{ $_ := set $store "endpoint" .store.endpoint }}{{ end -}}
{{- if .store.region }}{{ $_ := set $store "region" .store.region }}{{ end -}}
{{- if .store.caConfigMap }}{{ $_ := set $store "ca_bundle" (printf "/etc/editr1-ca/%s" .store.caKey) }}{{ end -}}
{{- $runtime := dict
  "release" (include "editr1.name" $root)
  "publish_seconds" (.telemetry.publishIntervalSeconds | int)
  "heartbeat_timeout_seconds" (.heartbeatTimeoutSeconds | float64)
  "log_format" (ternary "json" "text" .telemetry.jsonLogs) -}}
{{- if and (hasKey . "restartPolicy") (eq (default "" .restartPolicy) "ExitCode") -}}
{{- $_ := set $runtime "retries" (.retries | int) -}}
{{- end -}}
{{- $job := dict
  "run" (include "editr1.run" $root)
  "stage" (include "editr1.stage" $root)
  "kind" (include "editr1.kind" $root)
  "key" .key
  "seed" (.seed | int)
  "store" $store
  "inputs" .inputs
  "config" $.config
  "workdir" "/work"
  "git_revision" .gitRevision
  "runtime" $runtime -}}
{{- if $.rewardUrls }}{{ $_ := set $job "reward_urls" $.rewardUrls }}{{ end -}}
{{- if $.rewardDigest }}{{ $_ := set $job "reward_digest" $.rewardDigest }}{{ end -}}
{{- if $.rewardIdentity }}{{ $_ := set $job "reward" $.rewardIdentity }}{{ end -}}
{{- toPrettyJson $job -}}
{{- end -}}
{{- end -}}

{{/* Fails if an upgrade would change the job of a training stage, because a pod that is restarted would continue from the
     checkpoint of the earlier settings. Without access to the cluster, as in Argo CD, the ConfigMap is immutable, and the pod
     recomputes the key. Its arguments are those of editr1.jobFile. */}}
{{- define "editr1.checkUpgrade" -}}
{{- $root := .root -}}
{{- if $root.Release.IsUpgrade -}}
{{- $known := lookup "v1" "ConfigMap" $root.Release.Namespace (include "editr1.name" $root) -}}
{{- if $known -}}
{{- $before := index $known.data "job.json" | fromJson -}}
{{- $after := include "editr1.jobFile" . | fromJson -}}
{{- range $field := concat (keys $before) (keys $after) | uniq | sortAlpha -}}
{{- if ne (toJson (get $before $field)) (toJson (get $after $field)) -}}
{{- fail (printf "%s of this stage differs from that of the installed release, and a job cannot be upgraded: uninstall it with helm uninstall %s -n %s and install it again, or choose another release name" $field $root.Release.Name $root.Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The ConfigMap that contains the job file. Its arguments are those of editr1.jobFile. */}}
{{- define "editr1.configMap" -}}
{{- $training := ne (include "editr1.kind" .root) "serve" -}}
{{- if $training }}{{ include "editr1.checkUpgrade" . }}{{ end -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "editr1.name" .root | quote }}
  {{- include "editr1.objectMetadata" (dict "root" .root) | nindent 2 }}
data:
  job.json: |
    {{- include "editr1.jobFile" . | nindent 4 }}
{{- if $training }}
immutable: true
{{- end }}
{{- end -}}

{{- define "editr1.serviceAccountObject" -}}
{{- if not .Values.serviceAccountName -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "editr1.name" . | quote }}
  {{- include "editr1.objectMetadata" (dict "root" . "annotations" .Values.serviceAccountAnnotations) | nindent 2 }}
automountServiceAccountToken: false
{{- end -}}
{{- end -}}

{{- define "editr1.networkPolicy" -}}
{{- if .Values.networkPolicy.enabled -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "editr1.name" . | quote }}
  {{- include "editr1.objectMetadata" (dict "root" .) | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "editr1.selectorLabels" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    - from:
        - podSelector:
            matchLabels:
              {{- include "editr1.selectorLabels" . | nindent 14 }}
    {{- if eq .Chart.Name "reward" }}
    - from:
        {{- if .Values.networkPolicy.ingressFrom }}
        {{- toYaml .Values.networkPolicy.ingressFrom | nindent 8 }}
        {{- else }}
        - podSelector: {}
        {{- end }}
        {{- if eq .Values.autoscaling.mode "keda" }}
        - namespaceSelector:
            matchLabels:
              kubernetes.io/metadata.name: {{ .Values.autoscaling.keda.namespace }}
        {{- end }}
      ports:
        - port: 8000
          protocol: TCP
    {{- end }}
  egress:
    - to:
        - podSelector:
            matchLabels:
              {{- include "editr1.selectorLabels" . | nindent 14 }}
    - ports:
        {{- range .Values.networkPolicy.dnsPorts }}
        - port: {{ . }}
          protocol: UDP
        - port: {{ . }}
          protocol: TCP
        {{- end }}
        {{- range .Values.networkPolicy.egressPorts }}
        - port: {{ . }}
          protocol: TCP
        {{- end }}
    {{- with .Values.networkPolicy.extraEgress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
{{- end -}}

{{/* The pod of "helm test". It reads the job file, writes to the artifact store and, in the reward chart, waits until the
     reward service is ready. */}}
{{- define "editr1.testPod" -}}
apiVersion: v1
kind: Pod
metadata:
  name: {{ printf "%s-test" (include "editr1.name" .) }}
  labels:
    app.kubernetes.io/name: {{ printf "editr1-%s-test" .Chart.Name }}
    app.kubernetes.io/instance: {{ include "editr1.name" . | quote }}
    app.kubernetes.io/part-of: editr1
    {{- with merge (deepCopy .Values.podLabels) .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    {{- with merge (deepCopy .Values.podAnnotations) .Values.commonAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    helm.sh/hook: test
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  restartPolicy: Never
  {{- include "editr1.scheduling" . | nindent 2 }}
  securityContext:
    {{- include "editr1.podSecurityContext" . | nindent 4 }}
  containers:
    - name: test
      image: {{ include "editr1.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [python, -m, editr1.stages.runtime.check]
      {{- if eq .Chart.Name "reward" }}
      args: [--ready, {{ printf "http://%s.%s.svc:8000" (include "editr1.name" .) .Release.Namespace | quote }}]
      {{- end }}
      env:
        {{- include "editr1.env" . | nindent 8 }}
      {{- with .Values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      resources:
        {{- toYaml .Values.helperResources | nindent 8 }}
      securityContext:
        {{- include "editr1.securityContext" . | nindent 8 }}
      volumeMounts:
        {{- include "editr1.volumeMounts" . | nindent 8 }}
  volumes:
    {{- include "editr1.volumes" . | nindent 4 }}
{{- end -}}
