/** Numbers of linux/capability.h: what package managers and daemons commonly need. */
const ROOT_CAPABILITIES: Readonly<Record<string, number>> = {
  CHOWN: 0,
  DAC_OVERRIDE: 1,
  FOWNER: 3,
  FSETID: 4,
  KILL: 5,
  SETGID: 6,
  SETUID: 7,
  SETPCAP: 8,
  NET_BIND_SERVICE: 10,
  SYS_CHROOT: 18,
  SETFCAP: 31,
};

/** What root in an image may do, within its own namespaces: a bit for each capability. */
export const ROOT_CAPABILITY_MASK = Object.values(ROOT_CAPABILITIES).reduce((mask, bit) => mask + 2 ** bit, 0);
