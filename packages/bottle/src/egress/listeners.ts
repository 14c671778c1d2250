/** An open file that the prologue handed over. */
export interface OpenListener {
  readonly kind: 'tcp' | 'udp4' | 'udp6' | 'snmp' | 'snmp6' | 'ns';
  /** 0 where there is none. */
  readonly port: number;
  readonly fd: number;
}

const KINDS: ReadonlySet<string> = new Set([
  'tcp',
  'udp4',
  'udp6',
  'snmp',
  'snmp6',
  'ns',
] satisfies OpenListener['kind'][]);

/** Reads what the prologue wrote: `KIND/PORT/FD,…`. */
export function parseListeners(text: string): readonly OpenListener[] {
  return text.split(',').map((item) => {
    const [, kind = '', port, fd] = /^([a-z0-9]+)\/([0-9]+)\/([0-9]+)$/.exec(item) ?? [];
    if (!KINDS.has(kind)) throw new TypeError('the list of listeners is malformed');
    return { kind: kind as OpenListener['kind'], port: Number(port), fd: Number(fd) };
  });
}
