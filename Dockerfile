# The container, ready to serve:      docker build -t sentiment .
# with another model in it:           docker build -t sentiment --build-arg MODEL=org/name .
# the tests, to run:                  docker build -t sentiment-test --target test .

# A Hub id, or a folder of the build context; empty: the shipped weights.
ARG MODEL=

FROM python:3.11-slim-bookworm AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1
WORKDIR /app


FROM base AS dependencies
COPY requirements.txt ./
# Less what only the client needs: it is not in the image.
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --requirement requirements.txt \
    && pip --python /opt/venv/bin/python uninstall --yes rich markdown-it-py mdurl pygments \
    && find /opt/venv -type d -name tests -prune -exec rm -rf {} +


FROM dependencies AS code
COPY project/*.py project/
COPY project/asyncapi/*.py project/asyncapi/
COPY project/sentiment/*.py project/sentiment/
# The root may be read-only when it runs: Python could not keep what it compiles then. And the files
# keep the rights that they had outside, which may have been their owner's only.
RUN python -m compileall -q --invalidation-mode unchecked-hash project && chmod -R a+rX project


FROM code AS model-exported
COPY project/sentiment/requirements.txt project/sentiment/
RUN pip --python /opt/venv/bin/python install --no-cache-dir --requirement project/sentiment/requirements.txt
COPY . ./
ARG MODEL
ARG MODEL_REVISION=
# Below /model as it is named, so that the name finds it in the final image as well.
RUN python -m project.sentiment.export "$MODEL" ${MODEL_REVISION:+--revision "$MODEL_REVISION"} --output "/model/$MODEL" \
    && chmod -R a+rX /model


FROM base AS model
COPY project/sentiment/weights /model/project/sentiment/weights
RUN chmod -R a+rX /model


# Only a model that has to be exported needs the stage with torch.
FROM model${MODEL:+-exported} AS baked


# Everything that a checkout has, for: docker run --rm sentiment-test
FROM dependencies AS test
COPY requirements-test.txt ./
RUN pip --python /opt/venv/bin/python install --no-cache-dir --requirement requirements-test.txt
COPY . ./
RUN chmod -R a+rX . && chown 10001:10001 .
USER 10001:10001
CMD ["pytest", "--cov"]


FROM base AS service
# Without the base image's own pip and setuptools, which nothing that runs here needs, and with a
# folder for the queue: a volume that is mounted there gets its owner.
RUN find /usr -depth -regextype egrep \
    -regex '.*/(ensurepip|distutils-precedence.pth|(pip|setuptools|wheel|pkg_resources|_distutils_hack)[0-9.]*(-[^/]*)?)' \
    -exec rm -rf {} + \
    && install --directory --owner=10001 --group=10001 /queue
# From what changes least to what changes most.
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=baked /model ./
COPY --from=code /app/project ./project
ARG MODEL
ARG REVISION=
# glibc asks for huge pages, which most kernels give to who asks: long texts are faster.
ENV MODEL=$MODEL \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/tmp/huggingface \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1
LABEL org.opencontainers.image.title="Sentiment" \
      org.opencontainers.image.description="A text classifier that runs as a Cortex AsyncAPI" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm"
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:%s/healthcheck' % os.getenv('CORTEX_PORT', '8000'), timeout=2)"]
ENTRYPOINT ["python", "-m", "project"]
