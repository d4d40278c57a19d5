#!/bin/sh
# slim.sh VENV [PROJECT ...]: uninstall the projects, then remove what nobody runs: tests, headers,
# build files, type stubs.
set -eu
venv=$1
shift
if [ $# -gt 0 ]; then
  python -m pip --python "$venv/bin/python" uninstall --yes --quiet "$@"
fi
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
before=$(du -sm "$venv" | cut -f1)

# Torch's test programs and protoc; torch_shm_manager is all that a running torch starts.
find "$site/torch/bin" -mindepth 1 ! -name torch_shm_manager -exec rm -rf {} +
rm -rf "$site/torch/include" "$site/torch/share" "$site/torch/test"
# The CUDA libraries bring headers too, and parts that nothing in torch names: a solver for several
# GPUs, a second build of the runtime compiler, code to compile against.
if [ -d "$site/nvidia" ]; then
  find "$site/nvidia" -type d -name include -prune -exec rm -rf {} +
  find "$site/nvidia" -type f \( -name 'libcusolverMg.so*' -o -name 'libnvrtc*.alt.so*' \
    -o -name '*.bc' \) -delete
fi
find "$site" -type d -name tests -prune -exec rm -rf {} +
find "$site" -type f \( -name '*.a' -o -name '*.pyi' -o -name '*.pxd' -o -name '*.h' \) -delete

echo "slim: $before MB, now $(du -sm "$venv" | cut -f1) MB"
