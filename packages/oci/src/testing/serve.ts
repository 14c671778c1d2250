import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

/** A server on a free port of this machine. */
export interface TestServer extends AsyncDisposable {
  /** `127.0.0.1:PORT` */
  readonly host: string;
}

export async function serve(listener: RequestListener): Promise<TestServer> {
  const server = createServer(listener);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Serves a handler of web requests. */
export function serveHandler(handler: (request: Request) => Promise<Response>): Promise<TestServer> {
  return serve((incoming, outgoing) => {
    const controller = new AbortController();
    outgoing.once('close', () => controller.abort());
    const answer = async () => {
      const { method = 'GET', url = '/', headers } = incoming;
      const hasBody = method !== 'GET' && method !== 'HEAD';
      const request = new Request(`http://${headers.host}${url}`, {
        method,
        headers: Object.entries(headers).flatMap(([name, value]) =>
          typeof value === 'string' ? [[name, value]] : [],
        ) as [string, string][],
        ...(hasBody
          ? { body: Readable.toWeb(incoming) as ReadableStream<Uint8Array<ArrayBuffer>>, duplex: 'half' as const }
          : {}),
        signal: controller.signal,
      });
      const response = await handler(request);
      outgoing.writeHead(response.status, Object.fromEntries(response.headers));
      if (response.body === null) outgoing.end();
      else await pipeline(Readable.fromWeb(response.body as never), outgoing);
    };
    answer().catch(() => outgoing.destroy());
  });
}
