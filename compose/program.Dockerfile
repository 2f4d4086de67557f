FROM python:3.11-slim
COPY pyproject.toml /src/
# What replstore needs, before replstore itself, so that another version of it doesn't fetch all of it again.
RUN python3 -c "import tomllib; p = tomllib.load(open('/src/pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['postgresql'], 'hatchling', sep='\n')" > /src/needs.txt \
 && pip install --no-cache-dir -r /src/needs.txt
COPY README.md LICENSE /src/
COPY replstore /src/replstore
COPY migrations /src/migrations
RUN pip install --no-cache-dir --no-build-isolation --no-deps /src
COPY compose/program.py /
USER 1000
ENV PYTHONUNBUFFERED=1
CMD ["python3", "/program.py"]
HEALTHCHECK --interval=2s --timeout=5s --start-period=60s --retries=5 CMD ["python3", "/program.py", "healthy"]
