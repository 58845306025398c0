# One image for every process: the command says which (see docker-compose.yml).
FROM python:3.13-slim

# The folders are the packages: an application, not a distribution.
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

# Where packages come from, if not from the public index: --build-arg PIP_INDEX_URL=...
ARG PIP_INDEX_URL
COPY deploy/requirements.txt ./
RUN python -m pip install --root-user-action=ignore --require-hashes --requirement requirements.txt

RUN useradd --system --uid 10001 --home-dir /app --no-create-home crossfill && install -d -o crossfill /archive
COPY . ./
RUN python -m compileall -q .
USER crossfill
CMD ["python", "-m", "api"]
