import { header } from '../../packages/oci/src/testing/index.ts';

/** Where docker and decant part, and why decant does what it does. */
export interface Difference {
  /** What is in the image that docker makes, as `list` of the fixtures tells it; or that it does not load the archive. */
  readonly docker: Readonly<Record<string, string>> | 'reject';
  readonly why: string;
}

const LINK_FOLLOWED =
  'Storage on overlay puts a directory in place of the link. Decant follows it inside the root, as umoci and containerd do: ' +
  'an image with /lib -> usr/lib keeps what is in there.';
const DOTDOT_REFUSED =
  'Docker takes what leaves the root for a name below it. No tool that makes layers writes such a name, and readers do not agree on it.';
const LAST_WINS =
  'Docker refuses a path that one layer has twice in some forms and not in others. By the layer specification anything may ' +
  'replace anything, and the last entry counts.';

/**
 * The cases in which docker (measured: 28.2, overlay2) does otherwise than decant, by their names. In all others both refuse the
 * image, or the same is in it. `outside` is as for the cases.
 */
export function differencesFromDocker(outside: string): Readonly<Record<string, Difference>> {
  return {
    'wh-through-symlink': { docker: { '/k': 'dir', '/u/x': 'u/x' }, why: LINK_FOLLOWED },
    'file-under-symlinked-parent': { docker: { '/lib/x': 'lib/x', '/usr/lib': 'dir' }, why: LINK_FOLLOWED },
    'symlink-over-nonempty-then-file': {
      docker: 'reject',
      why: 'On overlay the target of a link from a lower layer is not there while this one is unpacked. In the image it is.',
    },
    'trav-symlink-chain': {
      docker: 'reject',
      why: 'Docker makes no directory at the end of a chain of links. Decant does inside the root, and nothing outside is touched.',
    },
    'dup-dir-file': { docker: 'reject', why: LAST_WINS },
    'chmod-via-symlink': { docker: 'reject', why: LAST_WINS },
    'dev-whiteout-00': {
      docker: {},
      why: 'Overlay takes the device 0/0 of the archive for a whiteout of its own. A layer has .wh. files for that; such a device is refused.',
    },
    'trav-dotdot': { docker: { [`${outside}/evil`]: 'x' }, why: DOTDOT_REFUSED },
    'trav-mid': { docker: { '/d': 'dir', '/ok': 'x' }, why: DOTDOT_REFUSED },
    'wh-outside': { docker: { '/a': 'a', [outside]: 'dir' }, why: DOTDOT_REFUSED },
    'root-symlink': {
      docker: {},
      why: 'Docker drops the entry. An image whose root is a link has no meaning, so it is an error here.',
    },
    'deep-path': {
      docker: { [`/${'a/'.repeat(1000)}x`]: '' },
      why: 'The depth of a path is a limit here, 256 levels unless --limit depth=N says otherwise; docker has none below the 4,096 bytes of a path.',
    },
    'pax-size-mismatch': {
      docker: { '/a': header({ path: 'smuggled' }, 0).toString('latin1'), '/b': 'b' },
      why:
        'Docker believes the record and reads on, other readers believe the header: an image that is two images (CVE-2025-62518). ' +
        'Decant refuses it.',
    },
  };
}
