import { CELL_USER_NAMESPACE_FD } from '@decant/jail';

/** Exit statuses of the script for what is not the engine's build itself. */
export const SCRIPT_STATUS = { context: 90, base: 91, image: 92 } as const;

/**
 * What runs in the cell: unpack the context with all times 0, which count in the engine's cache, load the base images, build, and write the image to descriptor 3. The
 * inbox has `context`, `Dockerfile` and, for each base, a layout and a line `DIRECTORY NAME` in `bases`. Arguments are
 * those of `buildah bud`. Steps get none of the descriptors. Descriptor 3 is a socket, which cannot be opened by a name.
 */
export const BUILD_SCRIPT = `
exec ${CELL_USER_NAMESPACE_FD}<&-
engine() { buildah --root /build/storage --runroot /run/storage --storage-driver overlay "$@" 3>&-; }
rm -rf /build/work && mkdir -p /build/home /build/storage /build/work/context /build/work/tmp || exit ${SCRIPT_STATUS.context}
ln -s /build/work/tmp /var/tmp || exit ${SCRIPT_STATUS.context}
tar -xf /in/context -C /build/work/context --no-same-owner 3>&- || exit ${SCRIPT_STATUS.context}
find /build/work/context -exec touch -h -d @0 {} + || exit ${SCRIPT_STATUS.context}
while read -r directory name; do
  id=$(engine pull --quiet "oci:/in/$directory") && engine tag "$id" "$name" || exit ${SCRIPT_STATUS.base}
done < /in/bases
engine bud "$@" --iidfile /build/work/image-id --file /in/Dockerfile /build/work/context || exit
image=$(cat /build/work/image-id)
status=$({ { engine push --quiet "$image" docker-archive:/dev/stdout 4>&-; echo $? >&4; } | cat >&3; } 4>&1)
[ "$status" = 0 ] || exit ${SCRIPT_STATUS.image}
rm -rf /build/work
`;
