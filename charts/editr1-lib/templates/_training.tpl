{{- define "editr1.trainingEnv" -}}
{{- with .Values.nccl }}
- name: NCCL_DEBUG
  value: {{ .debug }}
{{- if .interface }}
- name: NCCL_SOCKET_IFNAME
  value: {{ .interface | quote }}
- name: GLOO_SOCKET_IFNAME
  value: {{ .interface | quote }}
{{- end }}
{{- if eq .preset "ethernet" }}
- name: NCCL_IB_DISABLE
  value: "1"
{{- else if eq .preset "infiniband" }}
- name: NCCL_IB_DISABLE
  value: "0"
- name: NCCL_NET_GDR_LEVEL
  value: PHB
{{- else if eq .preset "efa" }}
- name: FI_PROVIDER
  value: efa
- name: FI_EFA_USE_DEVICE_RDMA
  value: "1"
{{- end }}
{{- end }}
{{- end -}}

{{/* The PyTorchJob. A job on one node is a single Master. A job on several nodes has only Workers: with a Master, the training
     operator adds an init container to every Worker, and Pod Security "restricted" rejects that container. */}}
{{- define "editr1.pytorchJob" -}}
{{- $name := include "editr1.name" . -}}
{{- $several := gt (int .Values.nodes) 1 -}}
{{- $processes := int .Values.processes | default (int .Values.gpus | default 1) -}}
apiVersion: kubeflow.org/v1
kind: PyTorchJob
metadata:
  name: {{ $name | quote }}
  {{- $queue := ternary dict (dict "kueue.x-k8s.io/queue-name" .Values.queueName) (eq .Values.queueName "") }}
  {{- include "editr1.objectMetadata" (dict "root" . "labels" $queue) | nindent 2 }}
spec:
  nprocPerNode: {{ $processes | quote }}
  runPolicy:
    cleanPodPolicy: Running
    ttlSecondsAfterFinished: {{ .Values.ttlSecondsAfterFinished | int }}
    backoffLimit: {{ .Values.retries | int }}
    {{- with .Values.schedulingPolicy }}
    {{- $policy := dict -}}
    {{- range $name, $value := . }}{{ if $value }}{{ $_ := set $policy $name $value }}{{ end }}{{ end }}
    {{- with $policy }}
    schedulingPolicy:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- end }}
    {{- if .Values.suspend }}
    suspend: true
    {{- end }}
  {{- if $several }}
  elasticPolicy:
    rdzvBackend: c10d
    rdzvId: {{ $name | quote }}
    minReplicas: {{ .Values.nodes | int }}
    maxReplicas: {{ .Values.nodes | int }}
    maxRestarts: {{ .Values.retries | int }}
  {{- end }}
  pytorchReplicaSpecs:
    {{ ternary "Worker" "Master" $several }}:
      replicas: {{ .Values.nodes | int }}
      restartPolicy: {{ .Values.restartPolicy }}
      template:
        metadata:
          labels:
            {{- include "editr1.podLabels" . | nindent 12 }}
          annotations:
            kubectl.kubernetes.io/default-container: pytorch
            {{- with .Values.podAnnotations }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
        spec:
          terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds | int }}
          {{- include "editr1.scheduling" . | nindent 10 }}
          securityContext:
            {{- include "editr1.podSecurityContext" . | nindent 12 }}
          containers:
            - name: pytorch
              image: {{ include "editr1.image" . }}
              imagePullPolicy: {{ .Values.image.pullPolicy }}
              command: [python, -m, editr1.stages.runtime.pod, {{ include "editr1.kind" . }}]
              env:
                {{- include "editr1.env" . | nindent 16 }}
              {{- with .Values.envFrom }}
              envFrom:
                {{- toYaml . | nindent 16 }}
              {{- end }}
              resources:
                {{- include "editr1.resources" . | nindent 16 }}
              securityContext:
                {{- include "editr1.securityContext" . | nindent 16 }}
              volumeMounts:
                {{- include "editr1.volumeMounts" . | nindent 16 }}
          volumes:
            {{- include "editr1.volumes" . | nindent 12 }}
{{- end -}}

{{- define "editr1.trainingNotes" -}}
{{- $name := include "editr1.name" . -}}
Stage {{ include "editr1.stage" . }} of run {{ include "editr1.run" . }} is {{ if or .Values.suspend .Values.queueName }}created{{ if .Values.queueName }} and waits for admission by its queue{{ else }} and suspended{{ end }}{{ else }}starting{{ end }}.

  editr1 status {{ $name }} -n {{ .Release.Namespace }}
  editr1 logs {{ $name }} -n {{ .Release.Namespace }} -f
  kubectl -n {{ .Release.Namespace }} get pytorchjob {{ $name }}

The outputs are written to {{ .Values.store.url }}.
A job cannot be upgraded. To change its values, uninstall this release and install another one.
{{- end -}}
