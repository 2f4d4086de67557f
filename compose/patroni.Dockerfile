# PostgreSQL with Patroni, and etcd, which patroni.yaml runs from the same image in a container of its own.
FROM postgres:18
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv ca-certificates etcd-server \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/patroni && /opt/patroni/bin/pip install --no-cache-dir 'patroni[etcd3,psycopg3]>=4.1,<5' 'psycopg[binary]>=3.2'
ENV PATH=/opt/patroni/bin:$PATH
