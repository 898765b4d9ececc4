// Prints the map of a baked model as JSON: node run.js net.onnx pixels.bin 1,3,64,64
const ort = require('onnxruntime-web');
ort.env.wasm.numThreads = 1;
(async () => {
  const [, , model, file, shape] = process.argv;
  const session = await ort.InferenceSession.create(model);
  const raw = require('fs').readFileSync(file);
  const pixels = new Float32Array(raw.buffer, raw.byteOffset, raw.length / 4);
  const input = new ort.Tensor('float32', pixels, shape.split(',').map(Number));
  const found = await session.run({ [session.inputNames[0]]: input });
  console.log(JSON.stringify(Array.from(found.map.data)));
})().catch((error) => { console.error(error); process.exit(1); });
