import { backendNamed, openRealBottle } from './real-bottle.ts';

/* Opens a bottle and is killed at a point of it: node killed-bottle-worker.ts DIRECTORY IMAGE POINT [BACKEND] */

const [directory = '', image = '', point = '', backend] = process.argv.slice(2);
await openRealBottle(
  directory,
  image,
  { backend: backendNamed(backend).name },
  {
    faultHook: async (at) => {
      if (at !== point) return;
      process.kill(process.pid, 'SIGKILL');
      await new Promise(() => undefined);
    },
  },
);
process.exit(1);
