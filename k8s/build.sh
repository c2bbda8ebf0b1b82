#!/usr/bin/env bash
# k8s/build.sh NAME [TORCH]: the image NAME:VERSION, or NAME:VERSION-TORCH with torch of https://download.pytorch.org/whl
#
#     k8s/build.sh registry.example.com/editfleet          # PyPI's torch, for GPUs from Turing on
#     k8s/build.sh registry.example.com/editfleet cu126    # CUDA 12.6, the last for V100
#     k8s/build.sh registry.example.com/editfleet cpu      # no GPU, and gigabytes less
#
# DOCKER names another builder, such as podman. All other versions are those of k8s/constraints.txt.
set -euo pipefail
name=${1:?"the image's name without a tag, such as registry.example.com/editfleet"}
torch=${2:-}
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
image=$name:$version${torch:+-$torch}
"${DOCKER:-docker}" build --file k8s/Dockerfile --tag "$image" \
    ${torch:+--build-arg "TORCH_INDEX=https://download.pytorch.org/whl/$torch"} .
echo "Built $image; push it, and name it under 'images' in the overlay"
