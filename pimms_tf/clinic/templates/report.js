(function () {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const place = find("place"), picture = find("slice");
  function show() {
    const at = Number(place.value);
    const scan = Number(document.querySelector("input[name=scan]:checked").value);
    picture.src = data.frames[scan][at];
    find("marked").setAttribute("d", data.marked[at]);
    find("possible").setAttribute("d", data.possible[at]);
    find("where").textContent = data.words[at];
    place.setAttribute("aria-valuetext", data.words[at]);
  }
  place.addEventListener("input", show);
  document.querySelectorAll("input[name=scan]").forEach((choice) => choice.addEventListener("change", show));
  find("outlines").addEventListener("change", (event) => {
    document.body.classList.toggle("plain", !event.target.checked);
  });
  document.querySelectorAll("button[data-place]").forEach((button) => button.addEventListener("click", () => {
    place.value = button.dataset.place;
    show();
    find("viewer").scrollIntoView({ block: "center" });
    place.focus({ preventScroll: true });
  }));
  picture.parentElement.addEventListener("wheel", (event) => {
    event.preventDefault();
    place.value = Number(place.value) + Math.sign(event.deltaY);
    show();
  }, { passive: false });
  show();
})();
