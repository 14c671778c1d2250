import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * A client of the image-builder that knows only the contract: multipart submission, unnamed server-sent events read
 * anew after each drop, status, cancel.
 */
export interface BuildClient {
  submit(fields: Record<string, string>, contextFile: string, headers?: Record<string, string>): Promise<Response>;
  /** Submits, follows the log to its end and asks for the outcome. */
  build(fields: Record<string, string>, contextFile: string): Promise<FinishedBuild>;
  follow(buildId: string): Promise<{ lines: string[]; ends: unknown[] }>;
  status(buildId: string): Promise<any>;
  call(method: string, path: string, body?: unknown): Promise<{ status: number; type: string | null; body: any }>;
}

export interface FinishedBuild {
  readonly lines: readonly string[];
  readonly end: unknown;
  readonly status: any;
}

/** Statuses of `/logs` after which a client asks again, at most five times, a second apart. */
const RETRIED = new Set([404, 408, 429, 500, 502, 503, 504]);

export function buildClient(baseUrl: string, key: string): BuildClient {
  const authorization = `Bearer ${key}`;
  const submit: BuildClient['submit'] = async (fields, contextFile, headers = {}) => {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    const bytes = new Uint8Array(await readFile(contextFile));
    form.append('context', new Blob([bytes], { type: 'application/gzip' }), 'context.tar.gz');
    return fetch(`${baseUrl}/builds`, { method: 'POST', body: form, headers: { authorization, ...headers } });
  };
  const call: BuildClient['call'] = async (method, path, body) => {
    const json = body === undefined ? {} : { body: JSON.stringify(body) };
    const response = await fetch(`${baseUrl}${path}`, {
      method,
      headers: { authorization, 'content-type': 'application/json' },
      ...json,
    });
    const text = await response.text();
    const type = response.headers.get('content-type');
    return { status: response.status, type, body: type?.includes('json') === true ? JSON.parse(text) : text };
  };
  const status = async (id: string) => (await call('GET', `/builds/${id}`)).body;
  const follow: BuildClient['follow'] = async (id) => {
    for (let attempt = 1; ;) {
      const lines: string[] = [];
      const ends: unknown[] = [];
      const response = await fetch(`${baseUrl}/builds/${id}/logs`, {
        headers: { authorization, accept: 'text/event-stream' },
      }).catch(() => undefined);
      if (response !== undefined && response.status !== 200) {
        if (!RETRIED.has(response.status) || attempt++ >= 5) throw new Error(`SSE HTTP ${response.status}`);
      } else if (response !== undefined) {
        attempt = 1;
        const text = await response.text().catch(() => '');
        for (const block of text.split('\n\n')) {
          const data = /^data: ?(.*)$/m.exec(block)?.[1];
          if (data === undefined) continue;
          if (data.startsWith('{') && (data.includes('"done"') || data.includes('"error"')))
            ends.push(JSON.parse(data));
          else lines.push(data);
        }
        if (ends.length > 0) return { lines, ends };
      }
      await sleep(1000);
    }
  };
  return {
    submit,
    follow,
    status,
    call,
    async build(fields, contextFile) {
      const response = await submit(fields, contextFile);
      const { build_id: id, ...rest } = (await response.json()) as { build_id?: string };
      if (id === undefined) throw new Error(`no build_id: ${JSON.stringify(rest)}`);
      const { lines, ends } = await follow(id);
      if (ends.length !== 1) throw new Error(`${ends.length} ends`);
      return { lines, end: ends[0], status: await status(id) };
    },
  };
}
