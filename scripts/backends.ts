import { findProgram } from '../packages/core/src/node/index.ts';

/** Programs that make up a backend, by the name that stands in test names as `[backend:NAME]`, and their Debian package. */
export const BACKENDS: Readonly<Record<string, { readonly programs: readonly string[]; readonly package: string }>> = {
  docker: { programs: ['docker', 'dockerd'], package: 'docker.io' },
  buildah: { programs: ['buildah'], package: 'buildah' },
  podman: { programs: ['podman'], package: 'podman' },
  'docker-registry': { programs: ['docker-registry', 'skopeo'], package: 'docker-registry skopeo' },
  'erofs-utils': { programs: ['mkfs.erofs', 'fsck.erofs'], package: 'erofs-utils' },
  e2fsprogs: { programs: ['mkfs.ext4', 'debugfs', 'e2fsck'], package: 'e2fsprogs' },
  libnbd: { programs: ['nbdinfo', 'nbdcopy', 'nbdfuse'], package: 'libnbd-bin' },
  qemu: { programs: ['qemu-system-x86_64'], package: 'qemu-system-x86' },
  'qemu-utils': { programs: ['qemu-img'], package: 'qemu-utils' },
  bubblewrap: { programs: ['bwrap'], package: 'bubblewrap' },
  umoci: { programs: ['umoci'], package: 'umoci' },
  'python3-requests': { programs: ['python3'], package: 'python3-requests' },
  tmux: { programs: ['tmux'], package: 'tmux' },
  chromium: { programs: ['chromium'], package: 'chromium' },
  mmdebstrap: { programs: ['mmdebstrap'], package: 'mmdebstrap' },
  'network-namespace': {
    programs: ['unshare', 'nsenter', 'ip', 'perl', 'curl', 'git', 'openssl', 'python3'],
    package: 'util-linux iproute2 perl-base curl git openssl python3',
  },
};

/** Why tests of a backend could not run, as far as its programs tell; undefined when they are all there. */
export async function whyMissing(backend: string): Promise<string | undefined> {
  const known = BACKENDS[backend];
  if (known === undefined) return undefined;
  const found = await Promise.all(known.programs.map(async (name) => [name, await findProgram(name)] as const));
  const missing = found.filter(([, path]) => path === undefined).map(([name]) => name);
  if (missing.length === 0) return undefined;
  return `not installed: ${missing.join(', ')} (Debian package ${known.package})`;
}
