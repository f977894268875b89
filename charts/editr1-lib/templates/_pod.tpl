{{/* Security contexts that meet Pod Security level "restricted". */}}
{{- define "editr1.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ . | int64 }}
runAsGroup: {{ . | int64 }}
fsGroup: {{ . | int64 }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "editr1.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "editr1.scheduling" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.schedulerName }}
schedulerName: {{ . }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
serviceAccountName: {{ include "editr1.serviceAccount" . | quote }}
automountServiceAccountToken: {{ eq .Chart.Name "operator" }}
enableServiceLinks: false
{{- end -}}

{{- define "editr1.storeEnv" -}}
{{- with .Values.store -}}
{{- if .secretName }}
- name: EDITR1_S3_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .secretName }}
      key: {{ .accessKey }}
- name: EDITR1_S3_SECRET_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .secretName }}
      key: {{ .secretKey }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Environment variables of the stage's container. A variable in .Values.env replaces the chart's variable of the same name,
     because names must be unique. */}}
{{- define "editr1.env" -}}
{{- $overridden := dict -}}
{{- range .Values.env }}{{ $_ := set $overridden .name true }}{{ end -}}
{{- $env := list -}}
{{- $chartEnv := include "editr1.chartEnv" . | fromYamlArray -}}
{{- if hasKey .Values "restartPolicy" }}{{ $chartEnv = concat $chartEnv (include "editr1.trainingEnv" . | fromYamlArray) }}{{ end -}}
{{- range $chartEnv -}}
{{- if not (hasKey $overridden .name) }}{{ $env = append $env . }}{{ end -}}
{{- end -}}
{{- toYaml (concat $env .Values.env) -}}
{{- end -}}

{{- define "editr1.chartEnv" -}}
- name: EDITR1_CONFIG
  value: /etc/editr1/job.json
- name: HOME
  value: /work
# The user ID can have no name in the image, and libraries ask for it.
- name: USER
  value: editr1
- name: LOGNAME
  value: editr1
- name: HF_HOME
  value: /work/hf
- name: PYTHONUNBUFFERED
  value: "1"
- name: EDITR1_POD
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: EDITR1_POD_UID
  valueFrom:
    fieldRef:
      fieldPath: metadata.uid
- name: EDITR1_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: EDITR1_NODE
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name=$(EDITR1_NAMESPACE),k8s.pod.name=$(EDITR1_POD),k8s.pod.uid=$(EDITR1_POD_UID),k8s.node.name=$(EDITR1_NODE),service.version={{ .Chart.AppVersion }}
{{- with .Values.telemetry.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .Values.telemetry.metricsEndpoint }}
- name: OTEL_EXPORTER_OTLP_METRICS_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .Values.telemetry.traceparent }}
- name: TRACEPARENT
  value: {{ . | quote }}
{{- end }}
{{- include "editr1.storeEnv" . }}
{{- end -}}

{{- define "editr1.resources" -}}
{{- $limits := deepCopy .Values.resources.limits -}}
{{- if .Values.gpus -}}
{{- $_ := set $limits .Values.gpuResource (.Values.gpus | int) -}}
{{- end -}}
requests:
  {{- toYaml .Values.resources.requests | nindent 2 }}
{{- with $limits }}
limits:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "editr1.volumes" -}}
- name: job
  configMap:
    name: {{ include "editr1.name" . | quote }}
- name: tmp
  emptyDir: {}
- name: work
  {{- if .Values.scratch.claim }}
  persistentVolumeClaim:
    claimName: {{ .Values.scratch.claim }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .Values.scratch.size }}
  {{- end }}
- name: shm
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.sharedMemory }}
{{- with .Values.store.caConfigMap }}
- name: store-ca
  configMap:
    name: {{ . }}
{{- end }}
{{- with .Values.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "editr1.volumeMounts" -}}
- name: job
  mountPath: /etc/editr1
  readOnly: true
- name: tmp
  mountPath: /tmp
- name: work
  mountPath: /work
- name: shm
  mountPath: /dev/shm
{{- if .Values.store.caConfigMap }}
- name: store-ca
  mountPath: /etc/editr1-ca
  readOnly: true
{{- end }}
{{- with .Values.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}
