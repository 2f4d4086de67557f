# PostgreSQL with Patroni, and etcd, which patroni.yaml runs from the same image in a container of its own.
FROM postgres:18
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv etcd-server \
 && rm -rf /var/lib/apt/lists/*
# The image postgres knows no certificate authorities; where the image python knows more than the usual ones, pip needs them here too.
COPY --from=python:3.11-slim /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
RUN python3 -m venv /opt/patroni \
 && PIP_CERT=/etc/ssl/certs/ca-certificates.crt /opt/patroni/bin/pip install --no-cache-dir 'patroni[etcd3,psycopg3]>=4.1,<5' 'psycopg[binary]>=3.2'
ENV PATH=/opt/patroni/bin:$PATH
