import { DecantError } from '@decant/core';

/** That an engine is not installed, with where to get it for this kind of machine. */
export function engineMissing(
  name: 'docker' | 'podman',
  cause?: unknown,
  platform: NodeJS.Platform = process.platform,
): DecantError {
  return new DecantError('BUILD_ENGINE_MISSING', `${name} is not installed.`, {
    hint: pointer(name, platform),
    details: { engine: name },
    cause,
  });
}

function pointer(name: 'docker' | 'podman', platform: NodeJS.Platform): string {
  if (platform === 'linux') {
    const debian = name === 'docker' ? 'docker.io' : 'podman runc uidmap';
    const page = name === 'docker' ? 'https://docs.docker.com/engine/install/' : 'https://podman.io/docs/installation';
    return `On Debian or Ubuntu: apt-get install -y --no-install-recommends ${debian}. Elsewhere: ${page}`;
  }
  if (name === 'podman') return 'See https://podman.io/docs/installation';
  return platform === 'darwin'
    ? 'Install Docker Desktop: https://docs.docker.com/desktop/setup/install/mac-install/'
    : 'Install Docker Desktop: https://docs.docker.com/desktop/setup/install/windows-install/';
}
