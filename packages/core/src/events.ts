/** The stages of taking an image from its source to an admitted, named image, in their usual order. */
export type Stage =
  | 'prepare'
  | 'context'
  | 'build'
  | 'layers'
  | 'layout'
  | 'upload'
  | 'admit'
  | 'name'
  | 'fetch'
  | 'verify'
  | 'export'
  | 'diff';

/** What long work reports while it runs; every event is plain JSON. */
export type ProgressEvent =
  | {
      readonly type: 'stage-started';
      readonly stage: Stage;
      readonly message?: string;
      readonly totalBytes?: number;
      readonly totalItems?: number;
    }
  /** Absolute counts since the stage began. */
  | {
      readonly type: 'stage-progress';
      readonly stage: Stage;
      readonly bytes?: number;
      readonly totalBytes?: number;
      readonly items?: number;
      readonly totalItems?: number;
    }
  | {
      readonly type: 'stage-finished';
      readonly stage: Stage;
      readonly message?: string;
      readonly bytes?: number;
      readonly items?: number;
      readonly elapsedMs: number;
    }
  /** A line of output of a build engine or tool, without its line end. */
  | { readonly type: 'log'; readonly stage: Stage; readonly stream: 'stdout' | 'stderr'; readonly line: string }
  | { readonly type: 'warning'; readonly stage: Stage; readonly message: string; readonly hint?: string };

export type OnEvent = (event: ProgressEvent) => void;

/** Runs a stage: reports its start and, with the time it took, its end. A failing stage has no end event. */
export async function stage<T>(
  onEvent: OnEvent | undefined,
  name: Stage,
  action: (finish: (facts: { message?: string; bytes?: number; items?: number }) => void) => Promise<T>,
  message?: string,
): Promise<T> {
  const started = performance.now();
  onEvent?.({ type: 'stage-started', stage: name, ...(message === undefined ? {} : { message }) });
  let facts: { message?: string; bytes?: number; items?: number } = {};
  const result = await action((given) => {
    facts = given;
  });
  onEvent?.({ type: 'stage-finished', stage: name, ...facts, elapsedMs: Math.round(performance.now() - started) });
  return result;
}
