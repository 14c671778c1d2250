import { join } from 'node:path';

import { Authority } from '../packages/bottle/src/egress/authority.ts';
import { Internet, route } from '../packages/bottle/src/testing/internet.ts';
import { interleaved, median, type Rounds } from './measure.ts';
import type { BenchResult } from './report.ts';

const NAME = 'api.example.com';
const ADDRESS = '203.0.113.10';

/**
 * One client (curl) and one TLS server, with and without the fence between them, in turn: bytes per second of one download, and the
 * time of small requests on a kept connection. In the fence TLS is opened and made anew, the request judged and recorded. Needs root.
 */
export async function benchBottleProxy({ short }: { readonly short: boolean }): Promise<BenchResult> {
  await using internet = await Internet.open();
  await internet.openFence([route('api', NAME)]);
  const mib = short ? 16 : 256;
  const requests = short ? 20 : 200;
  const url = `https://${NAME}`;
  const direct = ['--cacert', join(internet.folder, 'upstream-ca.pem'), '--resolve', `${NAME}:443:${ADDRESS}`];
  const proxied = async (args: readonly string[]) =>
    (
      await internet.inside(['curl', '--silent', '--show-error', ...args], { transparent: true, timeoutMs: 120_000 })
    ).stdout.toString('utf8');
  const bare = async (args: readonly string[]) =>
    (await internet.outside(['curl', '--silent', '--show-error', ...direct, ...args], 120_000)).stdout.toString('utf8');
  const download = ['--output', '/dev/null', '--write-out', '%{speed_download}', `${url}/big?mib=${mib}`];
  const small = ['--output', '/dev/null', '--write-out', '%{time_total}\n', `${url}/?n=[1-${requests}]`];
  // The first one makes the connection.
  const milliseconds = (text: string) => median(text.trim().split('\n').slice(1).map(Number)) * 1000;
  const rounds: Rounds = short ? { least: 1, most: 1 } : { least: 5, most: 9, untilMs: 60_000, warmUp: 1 };
  const samples = await interleaved(rounds, {
    proxied: async () => Number(await proxied(download)),
    direct: async () => Number(await bare(download)),
    proxiedSmall: async () => milliseconds(await proxied(small)),
    directSmall: async () => milliseconds(await bare(small)),
  });
  const added = samples.of('proxiedSmall').map((value, i) => value - samples.of('directSmall')[i]!);
  return {
    name: 'bottle-proxy',
    short,
    input: { downloadMib: mib, requests, client: 'curl', server: 'node:https' },
    fields: { proxied_vs_direct_throughput: samples.ratio('proxied', 'direct') },
    goals: { proxied_vs_direct_throughput: { least: 0.5 } },
    absolute: {
      proxy_added_ms_p50: median(added),
      ca_leaf_ms: leafMilliseconds(short ? 20 : 200),
      proxied_mb_s: samples.median('proxied') / 1e6,
      direct_mb_s: samples.median('direct') / 1e6,
    },
  };
}

function leafMilliseconds(count: number): number {
  const authority = new Authority();
  const times = Array.from({ length: count }, (_, i) => {
    const start = performance.now();
    authority.contextFor(`leaf-${i}.example.com`);
    return performance.now() - start;
  });
  return median(times);
}
