// Runs beside the page, on the browser's audio thread: sends the samples of the microphone to the page as they come.
registerProcessor("recorder", class extends AudioWorkletProcessor {
  process(inputs) {
    const channel = inputs[0][0];
    if (channel) this.port.postMessage(channel.slice());
    return true;
  }
});
