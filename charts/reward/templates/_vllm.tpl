{{/* Folder of the model that vLLM serves. Pods that share a claim have the folder in common only if its content cannot differ between
     them: a rolling update to another model must not replace the files of the pods that still serve. */}}
{{- define "editr1.vllmModel" -}}
{{- if hasPrefix "sha256:" .Values.inputs.model -}}
/work/downloads/{{ .Values.inputs.model | trimPrefix "sha256:" | trunc 16 }}
{{- else -}}
/work/models/$(EDITR1_POD)
{{- end -}}
{{- end -}}

{{/* Init containers for the vLLM engine. The first one downloads the model (editr1.vllmModel). The second one is a sidecar that
     runs vLLM. The reward server starts once vLLM responds. */}}
{{- define "editr1.vllm" -}}
- name: fetch
  image: {{ include "editr1.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [python, -m, editr1.stages.runtime.fetch, model, {{ include "editr1.vllmModel" . | quote }}]
  env:
    {{- include "editr1.env" . | nindent 4 }}
  {{- with .Values.envFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  resources:
    {{- toYaml .Values.helperResources | nindent 4 }}
  securityContext:
    {{- include "editr1.securityContext" . | nindent 4 }}
  volumeMounts:
    {{- include "editr1.volumeMounts" . | nindent 4 }}
- name: vllm
  image: {{ .Values.vllm.image }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  restartPolicy: Always
  command:
    {{- toYaml .Values.vllm.command | nindent 4 }}
  args:
    - {{ printf "--model=%s" (include "editr1.vllmModel" .) | quote }}
    - --served-model-name=verifier
    - --host=127.0.0.1
    - --port=8001
    - --generation-config=vllm
    {{- range .Values.vllm.args }}
    - {{ . | quote }}
    {{- end }}
  env:
    - name: HOME
      value: /work
    # The image has no name for the user ID, for which libraries ask.
    - name: USER
      value: editr1
    - name: LOGNAME
      value: editr1
    - name: TORCHINDUCTOR_CACHE_DIR
      value: /work/cache/torchinductor
    - name: VLLM_CACHE_ROOT
      value: /work/cache/vllm
    - name: HF_HUB_OFFLINE
      value: "1"
    - name: VLLM_NO_USAGE_STATS
      value: "1"
    - name: EDITR1_POD
      valueFrom:
        fieldRef:
          fieldPath: metadata.name
    {{- with .Values.vllm.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  startupProbe:
    exec:
      command: [python3, -c, "import urllib.request as u; u.urlopen('http://127.0.0.1:8001/health', timeout=2)"]
    periodSeconds: 5
    timeoutSeconds: 10
    failureThreshold: {{ div (int .Values.startupTimeoutSeconds) 5 }}
  resources:
    {{- $limits := deepCopy .Values.vllm.resources.limits }}
    {{- if .Values.gpus }}{{ $_ := set $limits .Values.gpuResource (.Values.gpus | int) }}{{ end }}
    requests:
      {{- toYaml .Values.vllm.resources.requests | nindent 6 }}
    {{- with $limits }}
    limits:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  securityContext:
    {{- include "editr1.securityContext" . | nindent 4 }}
  volumeMounts:
    - name: work
      mountPath: /work
    - name: tmp
      mountPath: /tmp
    - name: shm
      mountPath: /dev/shm
{{- end -}}
