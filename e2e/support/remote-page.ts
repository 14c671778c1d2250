import { createRemoteBuilder, memoryContext } from '../../packages/builder-remote/src/index.ts';

export interface PageBuild {
  readonly lines: readonly string[];
  readonly image: string;
  readonly error: string;
}

/** Builds files of this page's memory; what a test in a browser calls. */
async function build(
  baseUrl: string,
  token: string,
  files: readonly { path: string; content: string }[],
  transfer: 'archive' | 'files',
): Promise<PageBuild> {
  const lines: string[] = [];
  const builder = createRemoteBuilder({ baseUrl, token, patienceMs: 5000, fetch: (input, init) => fetch(input, init) });
  try {
    const events = builder.build({ context: memoryContext(files), transfer });
    for (;;) {
      const step = await events.next();
      if (step.done === true) return { lines, image: step.value.image, error: '' };
      if (step.value.type === 'log') lines.push(step.value.line);
    }
  } catch (error) {
    return { lines, image: '', error: String((error as { code?: unknown }).code ?? error) };
  }
}

Object.assign(globalThis, { build });
