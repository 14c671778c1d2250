import { inject } from 'vitest';

import { have, isRoot } from '../programs.ts';
import { canMakeAttackImage } from './attack-image.ts';

const anyBackend =
  isRoot && have('bwrap', 'mkfs.ext4', 'busybox', 'ip', 'openssl', 'python3', 'unshare') && canMakeAttackImage();

/** The backends that the adversarial suite is for, and whether this machine has them. */
export const ESCAPE_BACKENDS = [
  ['native', anyBackend],
  ['docker', anyBackend && inject('dockerHost') !== null],
] as const;
