"use strict";
// Without this script the page shows everything; it adds choices.
for (const section of document.querySelectorAll("section")) {
  const all = (selector) => [...section.querySelectorAll(selector)];

  // Methods are shown or hidden in all charts of a section.
  for (const box of all(".methods input")) {
    box.addEventListener("change", () => {
      for (const group of all(`g[data-method="${box.value}"]`)) group.style.display = box.checked ? "" : "none";
    });
  }

  // Questions are filtered by who has the right answer, and sorted.
  const body = section.querySelector(".questions tbody");
  if (body) {
    const [run, which, order] = all(".pick select");
    const rows = [...body.rows];
    const wrong = (row) => [...row.dataset.marks].filter((mark) => mark === "0").length;
    const update = () => {
      const sorted = order.value === "wrong" ? [...rows].sort((a, b) => wrong(b) - wrong(a)) : rows;
      let shown = 0;
      for (const row of sorted) {
        const pair = row.dataset.marks[0] + row.dataset.marks[+run.value];
        row.hidden = which.value !== "" && pair !== which.value;
        shown += !row.hidden;
        body.append(row);
      }
      section.querySelector(".shown").textContent = `${shown} of ${rows.length} shown`;
    };
    for (const select of [run, which, order]) select.addEventListener("change", update);
    section.querySelector(".pick").hidden = false;
    update();
  }

  // Patches go as the budget shrinks.
  for (const slide of all(".slide")) {
    const data = JSON.parse(slide.querySelector("script").textContent);
    const [canvas, range, method, text] = ["canvas", "input", "select", "output"].map((name) => slide.querySelector(name));
    const image = new Image();
    const draw = () => {
      const step = data.steps[+method.value][+range.value];
      const context = canvas.getContext("2d");
      canvas.width = image.width;
      canvas.height = image.height;
      context.drawImage(image, 0, 0);
      const [rows, columns] = data.grid;
      const [width, height] = [image.width / columns, image.height / rows];
      const kept = step.kept && new Set(step.kept);
      context.fillStyle = "rgba(24, 24, 24, 0.82)";
      for (let patch = 0; kept && patch < rows * columns; patch++) {
        if (kept.has(patch)) continue;
        context.fillRect((patch % columns) * width, Math.floor(patch / columns) * height, width + 0.5, height + 0.5);
      }
      text.textContent = `${step.tokens} of ${rows * columns} tokens: ${step.answer}`;
    };
    image.addEventListener("load", draw);
    for (const input of [range, method]) input.addEventListener("input", draw);
    image.src = data.image;
    slide.hidden = false;
  }
}
