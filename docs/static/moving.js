// Pictures that move (docs/live.py): every path and text was made when the site was built, one for
// each position of the sliders. Here the ones that belong to the present position are put in place.
"use strict";

function enliven(figure) {
  const parts = JSON.parse(figure.querySelector("script").textContent);
  const sliders = [...figure.querySelectorAll("input")];
  const elements = parts.map((_, i) => figure.querySelector(`[data-part="${i}"]`));

  function show() {
    parts.forEach(({ by, attribute, frames, at }, i) => {
      const place = by.reduce((n, k) => n * (Number(sliders[k].max) + 1) + Number(sliders[k].value), 0);
      const frame = frames[at[place]];
      if (attribute) elements[i].setAttribute(attribute, frame);
      else elements[i].textContent = frame;
    });
    const numbers = [...figure.querySelectorAll(".numbers tr")].map((row) => row.innerText);
    for (const slider of sliders) {
      const text = JSON.parse(slider.dataset.texts)[slider.value];
      slider.parentElement.querySelector(".now").textContent = text;
      // A screen reader says the slider's position and then what the table has become.
      slider.setAttribute("aria-valuetext", [text, ...numbers].join("; "));
    }
  }

  function play(button) {
    const slider = button.previousElementSibling.querySelector("input");
    const running = button.getAttribute("aria-pressed") === "true";
    button.setAttribute("aria-pressed", String(!running));
    clearInterval(button.timer);
    if (running) return;
    if (slider.value === slider.max) slider.value = 0;
    button.timer = setInterval(() => {
      slider.stepUp();
      show();
      if (slider.value === slider.max) play(button);
    }, 400);
  }

  figure.addEventListener("input", show);
  for (const button of figure.querySelectorAll("button")) {
    button.addEventListener("click", () => play(button));
  }
  figure.classList.add("live");
  show(); // a browser may bring back where a slider stood
}

document.querySelectorAll("figure.moving").forEach(enliven);
